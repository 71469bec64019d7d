//! The `#[ktest]` attribute: registers a function as a test of the kernel.
//!
//! A crate of its own because procedural macros must be; use it through `ktest`, which re-exports and documents it.
//! It reads the few tokens of a function's head itself: a full parser of Rust would be most of the build's time for
//! `fn name()`.

use proc_macro::{Delimiter, Group, Ident, Literal, Span, TokenStream, TokenTree};
use std::iter::Peekable;

/// Registers a function as a test. See `ktest`'s documentation.
#[proc_macro_attribute]
pub fn ktest(arguments: TokenStream, item: TokenStream) -> TokenStream {
    let registration = kind(arguments).and_then(|kind| {
        let name = test_name(item.clone())?;
        Ok(registration(&name, &kind))
    });
    // The function itself stays whatever happens, so that a mistake is reported once and not again by its callers.
    let mut output = item;
    output.extend(registration.unwrap_or_else(Mistake::into_compile_error));
    output
}

/// What is wrong, and where.
struct Mistake {
    span: Span,
    message: &'static str,
}

impl Mistake {
    fn at(token: Option<&TokenTree>, message: &'static str) -> Self {
        Self { span: token.map_or_else(Span::call_site, TokenTree::span), message }
    }

    fn into_compile_error(self) -> TokenStream {
        let tokens: TokenStream =
            format!("::core::compile_error! {{ {:?} }}", self.message).parse().expect("valid Rust");
        respan(tokens, self.span)
    }
}

fn respan(tokens: TokenStream, span: Span) -> TokenStream {
    tokens
        .into_iter()
        .map(|token| {
            let mut token = match token {
                TokenTree::Group(group) => {
                    Group::new(group.delimiter(), respan(group.stream(), span)).into()
                }
                other => other,
            };
            token.set_span(span);
            token
        })
        .collect()
}

/// Reads the attribute's arguments: nothing, or `fatal = "message"`. Gives a `ktest::Kind` as source text.
fn kind(arguments: TokenStream) -> Result<String, Mistake> {
    const USAGE: &str =
        "expected `#[ktest]` or `#[ktest(fatal = \"part of the message the kernel ends with\")]`";
    let mut tokens = arguments.into_iter();
    let Some(first) = tokens.next() else { return Ok("::ktest::Kind::Normal".into()) };
    if first.to_string() != "fatal" {
        return Err(Mistake::at(Some(&first), USAGE));
    }
    match tokens.next() {
        Some(equals) if equals.to_string() == "=" => {}
        other => return Err(Mistake::at(Some(&other.unwrap_or(first)), USAGE)),
    }
    let message = match tokens.next() {
        Some(TokenTree::Literal(message)) if is_string(&message) => message,
        other => return Err(Mistake::at(Some(&other.unwrap_or(first)), USAGE)),
    };
    if matches!(message.to_string().as_str(), "\"\"" | "r\"\"") {
        let message = TokenTree::Literal(message);
        return Err(Mistake::at(Some(&message), "an empty message would be part of every message"));
    }
    match tokens.find(|token| token.to_string() != ",") {
        Some(surplus) => Err(Mistake::at(Some(&surplus), USAGE)),
        None => Ok(format!("::ktest::Kind::Fatal {{ message: {message} }}")),
    }
}

fn is_string(literal: &Literal) -> bool {
    let text = literal.to_string();
    text.starts_with('"') || text.starts_with("r\"") || text.starts_with("r#")
}

/// Reads a function's head up to its body and gives its name.
fn test_name(item: TokenStream) -> Result<Ident, Mistake> {
    let mut tokens = item.into_iter().peekable();
    while is_punctuation(tokens.peek(), '#') {
        tokens.next();
        tokens.next(); // the attribute's brackets
    }
    if is_word(tokens.peek(), "pub") {
        tokens.next();
        if group(&mut tokens, Delimiter::Parenthesis).is_some() { /* pub(crate) and the like */ }
    }
    if !is_word(tokens.peek(), "fn") {
        return Err(Mistake::at(
            tokens.peek(),
            "#[ktest] wants a plain `fn`: no `const`, `async`, `unsafe` or `extern`, and no other item",
        ));
    }
    tokens.next();
    let Some(TokenTree::Ident(name)) = tokens.next() else {
        return Err(Mistake::at(None, "#[ktest] wants a function with a name"));
    };
    let Some(parameters) = group(&mut tokens, Delimiter::Parenthesis) else {
        return Err(Mistake::at(
            tokens.peek(),
            "a test cannot be generic: the runner would not know of what",
        ));
    };
    if !parameters.stream().is_empty() {
        return Err(Mistake::at(Some(&parameters.into()), "a test takes no arguments"));
    }
    Ok(name)
}

type Tokens = Peekable<proc_macro::token_stream::IntoIter>;

/// Takes the next token if it is a group with this delimiter.
fn group(tokens: &mut Tokens, delimiter: Delimiter) -> Option<Group> {
    match tokens
        .next_if(|token| matches!(token, TokenTree::Group(group) if group.delimiter() == delimiter))
    {
        Some(TokenTree::Group(group)) => Some(group),
        _ => None,
    }
}

fn is_word(token: Option<&TokenTree>, word: &str) -> bool {
    matches!(token, Some(TokenTree::Ident(ident)) if ident.to_string() == word)
}

fn is_punctuation(token: Option<&TokenTree>, mark: char) -> bool {
    matches!(token, Some(TokenTree::Punct(punct)) if punct.as_char() == mark)
}

/// The static that the linker gathers. `NAME` stands for the function, so that a wrong return type is reported there.
fn registration(name: &Ident, kind: &str) -> TokenStream {
    let text = name.to_string();
    let text = text.trim_start_matches("r#");
    let source = format!(
        "const _: () = {{
            #[::ktest::__private::linkme::distributed_slice(::ktest::__private::KTESTS)]
            #[linkme(crate = ::ktest::__private::linkme)]
            static TEST: ::ktest::Test = ::ktest::Test::new(
                ::core::concat!(::core::module_path!(), \"::{text}\"),
                {kind},
                |report| ::ktest::__private::conclude(NAME, report),
            );
        }};"
    );
    substitute(source.parse().expect("valid Rust"), name)
}

fn substitute(tokens: TokenStream, name: &Ident) -> TokenStream {
    tokens
        .into_iter()
        .map(|token| match token {
            TokenTree::Ident(ident) if ident.to_string() == "NAME" => name.clone().into(),
            TokenTree::Group(group) => {
                Group::new(group.delimiter(), substitute(group.stream(), name)).into()
            }
            other => other,
        })
        .collect()
}
