//! A machine that differs from another one in a step or two passes the other steps on.

/// Inside `impl Machine for …`, or `impl UserMachine for …`: these methods, of both traits, are the field's.
///
/// ```ignore
/// impl Machine for ForgetsBarriers {
///     type Authority = ();
///
///     fn barrier(&self) {}
///
///     pass_on!(cpu: read_descriptor write_descriptors clean_descriptors invalidate_tlb
///         clean_and_invalidate zero_pages in_interrupt);
/// }
/// ```
#[macro_export]
macro_rules! pass_on {
    ($field:tt: $($method:ident)+) => {
        $($crate::pass_on!(@ $method $field);)+
    };
    (@ read_descriptor $field:tt) => {
        fn read_descriptor(&self, slot: $crate::kerncore::addr::PhysAddr) -> u32 {
            self.$field.read_descriptor(slot)
        }
    };
    (@ write_descriptors $field:tt) => {
        fn write_descriptors(
            &self,
            first: $crate::kerncore::addr::PhysAddr,
            descriptors: impl Iterator<Item = u32>,
        ) {
            self.$field.write_descriptors(first, descriptors);
        }
    };
    (@ clean_descriptors $field:tt) => {
        fn clean_descriptors(&self, first: $crate::kerncore::addr::PhysAddr, count: u32) {
            self.$field.clean_descriptors(first, count);
        }
    };
    (@ barrier $field:tt) => {
        fn barrier(&self) {
            self.$field.barrier();
        }
    };
    (@ invalidate_tlb $field:tt) => {
        fn invalidate_tlb(&self, pages: $crate::kerncore::addr::PageRange) {
            self.$field.invalidate_tlb(pages);
        }
    };
    (@ clean_and_invalidate $field:tt) => {
        fn clean_and_invalidate(
            &self,
            pages: $crate::kerncore::addr::PageRange,
            first: $crate::kerncore::addr::Pfn,
        ) {
            self.$field.clean_and_invalidate(pages, first);
        }
    };
    (@ zero_pages $field:tt) => {
        fn zero_pages(&self, pages: $crate::kerncore::addr::PageRange) {
            self.$field.zero_pages(pages);
        }
    };
    (@ in_interrupt $field:tt) => {
        fn in_interrupt(&self) -> bool {
            self.$field.in_interrupt()
        }
    };
    (@ cpu $field:tt) => {
        fn cpu(&self) -> usize {
            self.$field.cpu()
        }
    };
    (@ invalidate_tlb_space $field:tt) => {
        fn invalidate_tlb_space(&self, space: $crate::kerncore::user::asid::Asid) {
            self.$field.invalidate_tlb_space(space);
        }
    };
    (@ set_user_table $field:tt) => {
        fn set_user_table(&self, table: $crate::kerncore::addr::PhysAddr) {
            self.$field.set_user_table(table);
        }
    };
    (@ write_frames $field:tt) => {
        fn write_frames(&self, first: $crate::kerncore::addr::Pfn, bytes: &[u8]) {
            self.$field.write_frames(first, bytes);
        }
    };
    (@ copy_frame $field:tt) => {
        fn copy_frame(&self, from: $crate::kerncore::addr::Pfn, to: $crate::kerncore::addr::Pfn) {
            self.$field.copy_frame(from, to);
        }
    };
    (@ invalidate_tlb_in $field:tt) => {
        fn invalidate_tlb_in(
            &self,
            space: $crate::kerncore::user::asid::Asid,
            pages: $crate::kerncore::addr::PageRange,
        ) {
            self.$field.invalidate_tlb_in(space, pages);
        }
    };
    (@ invalidate_tlb_everything $field:tt) => {
        fn invalidate_tlb_everything(&self) {
            self.$field.invalidate_tlb_everything();
        }
    };
    (@ set_asid $field:tt) => {
        fn set_asid(&self, asid: $crate::kerncore::user::asid::Asid) {
            self.$field.set_asid(asid);
        }
    };
    (@ set_user_walks $field:tt) => {
        fn set_user_walks(&self, walks: $crate::kerncore::user::machine::Walks) {
            self.$field.set_user_walks(walks);
        }
    };
    (@ clean_instructions $field:tt) => {
        fn clean_instructions(&self, first: $crate::kerncore::addr::Pfn, count: u32) {
            self.$field.clean_instructions(first, count);
        }
    };
    (@ invalidate_instructions $field:tt) => {
        fn invalidate_instructions(&self) {
            self.$field.invalidate_instructions();
        }
    };
}
