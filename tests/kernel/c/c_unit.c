/* The kernel's C face, used as a driver uses it: by the header, from code that a C compiler has made (S85a).
 *
 * Each function here is a test that tests/kernel/src/suites/c_unit.rs runs. It gives 0, or the number of the line whose check
 * does not hold.
 */
#include "mapwright.h"

#define CHECK(holds) do { if (!(holds)) return __LINE__; } while (0)

/* How the compiler lays out what the header declares, and the numbers in it: compared with Rust's. */
extern const unsigned int c_unit_layout[];
const unsigned int c_unit_layout[] = {
    sizeof(struct vm_struct), offsetof(struct vm_struct, addr), offsetof(struct vm_struct, size),
    offsetof(struct vm_struct, flags), offsetof(struct vm_struct, pages), offsetof(struct vm_struct, nr_pages),
    offsetof(struct vm_struct, phys_addr), offsetof(struct vm_struct, caller), sizeof(struct page),
    _Alignof(struct page), sizeof(struct vm_area_struct), offsetof(struct vm_area_struct, vm_start),
    offsetof(struct vm_area_struct, vm_end), offsetof(struct vm_area_struct, vm_pgoff),
    offsetof(struct vm_area_struct, vm_flags),
};
extern const unsigned int c_unit_numbers[];
const unsigned int c_unit_numbers[] = {
    GFP_KERNEL, GFP_ATOMIC, GFP_HIGHUSER, __GFP_DMA, __GFP_HIGHMEM, __GFP_NOWARN, __GFP_ZERO, __GFP_THISNODE, __GFP_WAIT,
    VM_IOREMAP, VM_ALLOC, VM_MAP, VM_USERMAP, VM_VPAGES, VM_DMA, VM_RESERVED,
    PAGE_KERNEL, PAGE_KERNEL_RO, PAGE_KERNEL_NOCACHE, PAGE_KERNEL_WRITECOMBINE, ENXIO, ENOMEM, EBUSY, EINVAL, PAGE_SIZE,
    MEMREMAP_WB, MEMREMAP_WT, MEMREMAP_WC, EIO,
};

static volatile uint32_t *words(void *memory) { return memory; }

/* Marks the first and the last word of each page, and reads them back. */
static int holds_bytes(void *memory, unsigned int pages)
{
    for (unsigned int i = 0; i < pages; i++) {
        volatile uint32_t *page = words((char *)memory + i * PAGE_SIZE);
        page[0] = 0xc0de0000u + i;
        page[1023] = ~i;
    }
    for (unsigned int i = 0; i < pages; i++) {
        volatile uint32_t *page = words((char *)memory + i * PAGE_SIZE);
        if (page[0] != 0xc0de0000u + i || page[1023] != ~i) return 0;
    }
    return 1;
}

static int is_zero(void *memory, unsigned int pages)
{
    for (unsigned int i = 0; i < pages * 1024; i++) {
        if (words(memory)[i] != 0) return 0;
    }
    return 1;
}

/* What the descriptor of `pages` pages of memory of vmalloc must say, called from where `near` is. */
static int describes(const void *memory, unsigned int pages, unsigned long flags, const void *near)
{
    struct vm_struct *area = find_vm_area(memory);
    CHECK(area != NULL);
    CHECK(area->addr == memory);
    CHECK(area->size == (pages + 1) * PAGE_SIZE);
    CHECK(area->flags == flags);
    CHECK(area->nr_pages == pages);
    CHECK(area->phys_addr == 0);
    CHECK((const char *)area->caller > (const char *)near);
    CHECK((const char *)area->caller < (const char *)near + 0x1000);
    for (unsigned int i = 0; i < pages; i++) {
        const char *address = (const char *)memory + i * PAGE_SIZE;
        CHECK(area->pages[i] == vmalloc_to_page(address));
        CHECK(vmalloc_to_pfn(address) == vmalloc_to_pfn(memory) + (unsigned int)(area->pages[i] - area->pages[0]));
    }
    CHECK(vmalloc_to_page((const char *)memory + pages * PAGE_SIZE) == NULL);
    CHECK(find_area_containing((const char *)memory + pages * PAGE_SIZE - 1) == area);
    CHECK(find_area_containing((const char *)memory + pages * PAGE_SIZE) != area);
    return 0;
}

/* One way to memory: what is given, what it says of itself, and that it is gone when it is freed. */
#define MEMORY(call, pages, flags, zeroed) do {                                                                          \
        void *memory = (call);                                                                                           \
        CHECK(memory != NULL);                                                                                           \
        CHECK(is_vmalloc_addr(memory) == 1);                                                                             \
        CHECK(!(zeroed) || is_zero(memory, pages));                                                                      \
        CHECK(holds_bytes(memory, pages));                                                                               \
        int line = describes(memory, pages, flags, (const void *)c_unit_memory);                                         \
        if (line != 0) return line;                                                                                      \
        vfree(memory);                                                                                                   \
        CHECK(find_vm_area(memory) == NULL);                                                                             \
        CHECK(vmalloc_to_page(memory) == NULL);                                                                          \
    } while (0)

int c_unit_memory(void);
int c_unit_memory(void)
{
    MEMORY(vmalloc(1), 1, VM_ALLOC, 0);
    MEMORY(vmalloc(3 * PAGE_SIZE), 3, VM_ALLOC, 0);
    MEMORY(vmalloc(20 * PAGE_SIZE - 1), 20, VM_ALLOC, 0);
    MEMORY(vzalloc(2 * PAGE_SIZE), 2, VM_ALLOC, 1);
    MEMORY(vmalloc_huge(16 * PAGE_SIZE), 16, VM_ALLOC, 0);
    MEMORY(vmalloc_32(2 * PAGE_SIZE), 2, VM_ALLOC, 0);
    MEMORY(vmalloc_user(2 * PAGE_SIZE), 2, VM_ALLOC | VM_USERMAP, 1);
    MEMORY(vmalloc_32_user(2 * PAGE_SIZE), 2, VM_ALLOC | VM_USERMAP, 1);
    MEMORY(vmalloc_node(2 * PAGE_SIZE, 0), 2, VM_ALLOC, 0);
    MEMORY(vmalloc_node(2 * PAGE_SIZE, -1), 2, VM_ALLOC, 0);
    MEMORY(__vmalloc(2 * PAGE_SIZE, GFP_HIGHUSER | __GFP_ZERO, PAGE_KERNEL), 2, VM_ALLOC, 1);
    MEMORY(__vmalloc_node(2 * PAGE_SIZE, GFP_KERNEL, PAGE_KERNEL, 0), 2, VM_ALLOC, 0);
    MEMORY(vmalloc_array(3, PAGE_SIZE), 3, VM_ALLOC, 0);
    MEMORY(vcalloc(1025, 4), 2, VM_ALLOC, 1);
    MEMORY(vmalloc(1025 * PAGE_SIZE), 1025, VM_ALLOC | VM_VPAGES, 0);
    return 0;
}

/* Null, each for a reason of its own, and nothing is left behind. */
int c_unit_refusals(void);
int c_unit_refusals(void)
{
    CHECK(vmalloc(0) == NULL && vzalloc(0) == NULL && vmalloc_user(0) == NULL && vmalloc_exec(0) == NULL);
    CHECK(vmalloc(~0u) == NULL && vmalloc_huge(~0u) == NULL && kvmalloc(0, GFP_KERNEL) == NULL);
    CHECK(vmalloc_array(0x10000, 0x10000) == NULL && vcalloc(0x80000001u, 2) == NULL);
    CHECK(__vmalloc(PAGE_SIZE, 0x80000000u, PAGE_KERNEL) == NULL);
    CHECK(__vmalloc(PAGE_SIZE, GFP_KERNEL | __GFP_DMA | __GFP_HIGHMEM, PAGE_KERNEL) == NULL);
    CHECK(vmalloc_node(PAGE_SIZE, 99) == NULL && alloc_pages_node(99, GFP_KERNEL, 0) == NULL);
    CHECK(vmap(NULL, 1, VM_MAP, PAGE_KERNEL) == NULL && vmap_pfn(NULL, 1, PAGE_KERNEL) == NULL);
    CHECK(vm_map_ram(NULL, 1, -1) == NULL);
    CHECK(ioremap(0x10000000u, 0) == NULL && ioremap(0xfffff000u, 0x2000) == NULL);
    CHECK(find_vm_area(NULL) == NULL && find_area_containing(NULL) == NULL && is_vmalloc_addr(NULL) == 0);
    CHECK(vmalloc_to_page(NULL) == NULL && vmalloc_to_pfn(NULL) == 0);
    CHECK(get_vm_area(0, 0) == NULL && alloc_vm_area(0) == NULL && get_vm_area_node(PAGE_SIZE, 0, 99, GFP_KERNEL) == NULL);
    CHECK(__get_vm_area(PAGE_SIZE, 0, 0x1000, 0x3000) == NULL);
    CHECK(map_vm_area(NULL, PAGE_KERNEL, NULL) == -EINVAL);
    CHECK(set_memory_rox(0, 1) == -EINVAL && remap_vmalloc_range(NULL, NULL, 0) == -EINVAL);
    CHECK(dma_mmap_coherent(NULL, NULL, NULL, 0, 0) == -EINVAL);
    CHECK(vread(NULL, NULL, 5) == 0 && vwrite(NULL, NULL, 5) == 0);
    CHECK(alloc_pages(GFP_KERNEL, 11) == NULL);
    vfree(NULL);
    kvfree(NULL);
    kfree(NULL);
    vunmap(NULL);
    return 0;
}

int c_unit_sizes(void);
int c_unit_sizes(void)
{
    void *memory = vrealloc(NULL, PAGE_SIZE, GFP_KERNEL);
    CHECK(memory != NULL);
    words(memory)[5] = 0x5eed;
    memory = vrealloc(memory, 30 * PAGE_SIZE, GFP_KERNEL | __GFP_ZERO);
    CHECK(memory != NULL && words(memory)[5] == 0x5eed);
    CHECK(is_zero((char *)memory + PAGE_SIZE, 29));
    CHECK(find_vm_area(memory)->nr_pages == 30 && find_vm_area(memory)->size == 31 * PAGE_SIZE);
    memory = vrealloc(memory, 2 * PAGE_SIZE, GFP_KERNEL);
    CHECK(memory != NULL && words(memory)[5] == 0x5eed && find_vm_area(memory)->nr_pages == 2);
    CHECK(vrealloc(memory, 0, GFP_KERNEL) == NULL && find_vm_area(memory) == NULL);

    void *small = kvmalloc(24, GFP_KERNEL), *large = kvmalloc(5 * PAGE_SIZE, GFP_KERNEL);
    CHECK(small != NULL && is_vmalloc_addr(small) == 0);
    CHECK(large != NULL && is_vmalloc_addr(large) == 1 && holds_bytes(large, 5));
    kvfree(large);
    kvfree(small);
    small = kvmalloc(24, GFP_ATOMIC);
    CHECK(small != NULL);
    kfree(small);
    return 0;
}

/* Found by nobody at once; its memory comes back when somebody waits, as whoever runs this makes sure. */
int c_unit_deferred(void);
int c_unit_deferred(void)
{
    void *memory = vmalloc(2 * PAGE_SIZE);
    CHECK(memory != NULL);
    vfree_atomic(memory);
    CHECK(find_vm_area(memory) == NULL && find_area_containing(memory) == NULL);
    return 0;
}

/* MOV R0, #42; BX LR (ARM ARM A8.8.102, A8.8.27). */
int c_unit_code(void);
int c_unit_code(void)
{
    void *memory = vmalloc_exec(PAGE_SIZE);
    CHECK(memory != NULL && is_zero(memory, 1));
    words(memory)[0] = 0xe3a0002au;
    words(memory)[1] = 0xe12fff1eu;
    CHECK(set_memory_rox((unsigned long)memory, 2) == -EINVAL);
    CHECK(set_memory_rox((unsigned long)memory, 1) == 0);
    CHECK(set_memory_rox((unsigned long)memory, 1) == -EINVAL);
    int (*code)(void) = (int (*)(void))(uintptr_t)memory;
    CHECK(code() == 42);
    vfree(memory);
    CHECK(find_vm_area(memory) == NULL);
    return 0;
}

int c_unit_mappings(void);
int c_unit_mappings(void)
{
    struct page *block = alloc_pages(GFP_KERNEL | __GFP_ZERO, 2);
    CHECK(block != NULL);
    /* Backwards, and the first twice; adjacent pages have adjacent records. */
    struct page *pages[5] = { block + 3, block + 2, block + 1, block, block };
    for (int round = 0; round < 2; round++) {
        void *memory = round == 0 ? vmap(pages, 5, VM_MAP, PAGE_KERNEL) : vm_map_ram(pages, 5, -1);
        CHECK(memory != NULL && is_zero(memory, 5));
        for (unsigned int i = 0; i < 5; i++) {
            CHECK(vmalloc_to_page((char *)memory + i * PAGE_SIZE) == pages[i]);
        }
        words(memory)[3 * 1024] = 0x77;
        CHECK(words(memory)[4 * 1024] == 0x77);
        void *page = kmap_local_page(block);
        CHECK(page != NULL && words(page)[0] == 0x77);
        words(page)[0] = 0;
        kunmap_local(page);
        CHECK(words(memory)[3 * 1024] == 0);
        if (round == 0) {
            struct vm_struct *area = find_vm_area(memory);
            CHECK(area != NULL && area->flags == VM_MAP && area->size == 6 * PAGE_SIZE && area->pages == NULL);
            vunmap(memory);
        } else {
            vm_unmap_ram(memory, 5);
        }
        CHECK(vmalloc_to_page(memory) == NULL);
    }
    __free_pages(block, 2);
    struct page *one = alloc_pages_node(0, GFP_KERNEL, 0);
    CHECK(one != NULL);
    __free_pages(one, 0);
    return 0;
}

/* Video memory: of nobody, and no RAM. */
int c_unit_registers(unsigned int physical);
int c_unit_registers(unsigned int physical)
{
    void *mapped = ioremap(physical + 8, 8);
    CHECK(mapped != NULL && ((unsigned long)mapped & 0xfff) == 8);
    words(mapped)[0] = 0xfeed;
    struct vm_struct *area = find_area_containing(mapped);
    CHECK(area != NULL && area->flags == VM_IOREMAP && area->phys_addr == physical && area->nr_pages == 0);
    const unsigned int frames[1] = { physical >> PAGE_SHIFT };
    void *again = vmap_pfn(frames, 1, PAGE_KERNEL_NOCACHE);
    CHECK(again != NULL && words(again)[2] == 0xfeed);
    CHECK(vmalloc_to_pfn(again) == frames[0] && vmalloc_to_page(again) == NULL);
    vunmap(again);
    iounmap(mapped);
    CHECK(find_area_containing(mapped) == NULL);
    for (int posted = 0; posted < 2; posted++) {
        mapped = posted ? ioremap_wc(physical + 8, 8) : ioremap_np(physical + 8, 8);
        CHECK(mapped != NULL && words(mapped)[0] == 0xfeed);
        iounmap(mapped);
    }
    mapped = memremap(physical + 8, 8, MEMREMAP_WC);
    CHECK(mapped != NULL && words(mapped)[0] == 0xfeed);
    memunmap(mapped);
    CHECK(find_area_containing(mapped) == NULL);
    CHECK(memremap(physical, 8, 0) == NULL && ioremap_exec(physical, 8) == NULL);
    void *first = ioremap_shared(physical, 0x400);
    void *second = ioremap_shared(physical + 0x400, 0x400);
    CHECK(first != NULL && (char *)second == (char *)first + 0x400);
    words(first)[0x100] = 0xbeef;
    iounmap(first);
    CHECK(words(second)[0] == 0xbeef);
    iounmap(second);
    CHECK(find_area_containing(second) == NULL);
    return 0;
}

int c_unit_areas(void);
int c_unit_areas(void)
{
    struct page *block = alloc_pages(GFP_KERNEL, 1);
    CHECK(block != NULL);
    struct page *pages[2] = { block + 1, block };
    struct vm_struct *area = get_vm_area(2 * PAGE_SIZE, VM_MAP);
    CHECK(area != NULL && area->size == 3 * PAGE_SIZE && area->flags == VM_MAP);
    CHECK(area->pages == NULL && area->nr_pages == 0 && find_vm_area(area->addr) == area);
    struct page **cursor = pages;
    CHECK(map_vm_area(area, 77, &cursor) == -EINVAL && cursor == pages);
    CHECK(map_vm_area(area, PAGE_KERNEL, &cursor) == 0 && cursor == pages + 2);
    CHECK(holds_bytes(area->addr, 2) && vmalloc_to_page(area->addr) == block + 1);
    cursor = pages;
    CHECK(map_vm_area(area, PAGE_KERNEL, &cursor) == -EBUSY && cursor == pages);
    unmap_kernel_range((unsigned int)area->addr, PAGE_SIZE);
    CHECK(vmalloc_to_page(area->addr) == NULL);
    CHECK(vmalloc_to_page((char *)area->addr + PAGE_SIZE) == block);
    unmap_vm_area(area);
    CHECK(vmalloc_to_page((char *)area->addr + PAGE_SIZE) == NULL);
    /* What its owner writes is kept. */
    area->phys_addr = 0x12345000;
    area->nr_pages = 9;
    CHECK(find_vm_area(area->addr)->phys_addr == 0x12345000 && find_vm_area(area->addr)->nr_pages == 9);
    CHECK(remove_vm_area(area->addr) == area);
    CHECK(find_vm_area(area->addr) == NULL && area->size == 2 * PAGE_SIZE);
    kfree(area);
    __free_pages(block, 1);

    area = alloc_vm_area(PAGE_SIZE);
    CHECK(area != NULL && area->flags == VM_IOREMAP);
    free_vm_area(area);
    area = get_vm_area_node(PAGE_SIZE, VM_MAP, 0, GFP_KERNEL);
    CHECK(area != NULL);
    free_vm_area(area);
    area = get_vm_area_caller(PAGE_SIZE, 0, (const void *)0x1230);
    CHECK(area != NULL && area->caller == (const void *)0x1230);
    unsigned int base = (unsigned int)area->addr;
    free_vm_area(area);
    area = __get_vm_area(PAGE_SIZE, 0, base, base + 2 * PAGE_SIZE);
    CHECK(area != NULL && (unsigned int)area->addr == base);
    CHECK(__get_vm_area(PAGE_SIZE, 0, base, base + 2 * PAGE_SIZE) == NULL);
    free_vm_area(area);
    area = __get_vm_area_caller(PAGE_SIZE, VM_USERMAP, base, base + 2 * PAGE_SIZE, (const void *)0x4560);
    CHECK(area != NULL && area->caller == (const void *)0x4560 && area->flags == VM_USERMAP);
    free_vm_area(area);
    return 0;
}

/* The hook that the kernel has for whoever wants it: in its place, this one (S47). */
static volatile unsigned int sync_calls;
void vmalloc_sync_all(void) { sync_calls++; }

int c_unit_hook(void);
int c_unit_hook(void)
{
    unsigned int before = sync_calls;
    CHECK(alloc_vm_area(0) == NULL && sync_calls == before);
    struct vm_struct *area = alloc_vm_area(3 * PAGE_SIZE);
    CHECK(area != NULL && sync_calls == before + 1);
    free_vm_area(area);
    area = get_vm_area(3 * PAGE_SIZE, VM_MAP);
    CHECK(area != NULL && sync_calls == before + 1);
    free_vm_area(area);
    return 0;
}

int c_unit_filled_areas(void);
int c_unit_filled_areas(void)
{
    for (int round = 0; round < 2; round++) {
        struct vm_struct *area = get_vm_area(20 * PAGE_SIZE, 0);
        CHECK(area != NULL);
        void *memory = round == 0 ? __vmalloc_area(area, GFP_KERNEL | __GFP_ZERO, PAGE_KERNEL)
                                  : __vmalloc_area_node(area, GFP_KERNEL | __GFP_ZERO, PAGE_KERNEL, 0);
        CHECK(memory != NULL && memory == area->addr && find_vm_area(memory) == area);
        CHECK(area->nr_pages == 20 && (area->flags & VM_ALLOC) && is_zero(memory, 20) && holds_bytes(memory, 20));
        CHECK(area->pages[19] == vmalloc_to_page((char *)memory + 19 * PAGE_SIZE));
        vfree(memory);
    }
    return 0;
}

/* Over an area's end: what lies in the guard reads as zero and is written nowhere. */
int c_unit_copies(void);
int c_unit_copies(void)
{
    static char buffer[64];
    char *memory = vzalloc(PAGE_SIZE), *above = vmalloc(PAGE_SIZE);
    CHECK(memory != NULL && above != NULL);
    for (unsigned int i = 0; i < sizeof(buffer); i++) buffer[i] = (char)(i + 1);
    CHECK(vwrite(buffer, memory + PAGE_SIZE - 16, 48) == (above > memory ? 48 : 16));
    CHECK(memory[PAGE_SIZE - 16] == 1 && memory[PAGE_SIZE - 1] == 16 && memory[PAGE_SIZE - 17] == 0);
    CHECK(vread(buffer, memory + PAGE_SIZE - 20, 20) == 20);
    CHECK(buffer[3] == 0 && buffer[4] == 1 && buffer[19] == 16 && buffer[20] == 21);
    vfree(above);
    vfree(memory);
    return 0;
}

int c_unit_coherent(const struct device *device);
int c_unit_coherent(const struct device *device)
{
    dma_addr_t handle = 0;
    void *buffer = dma_alloc_coherent(device, 2 * PAGE_SIZE, &handle, GFP_KERNEL);
    CHECK(buffer != NULL && handle != 0 && is_zero(buffer, 2) && holds_bytes(buffer, 2));
    CHECK(vmalloc_to_pfn(buffer) == handle >> PAGE_SHIFT);
    CHECK(find_vm_area(buffer)->flags == (VM_DMA | VM_USERMAP) && find_vm_area(buffer)->phys_addr == handle);
    dma_free_coherent(device, 2 * PAGE_SIZE, buffer, handle);
    CHECK(find_vm_area(buffer) == NULL);
    init_consistent_dma_size(4 * PAGE_SIZE);
    return 0;
}

/* RAM begins at 0x60000000: 31 lines reach some of it, 24 reach none. */
int c_unit_masks(const struct device *device);
int c_unit_masks(const struct device *device)
{
    dma_addr_t handle = 0;
    CHECK(dma_set_mask(NULL, DMA_BIT_MASK(32)) == -EIO && dma_set_mask(device, DMA_BIT_MASK(24)) == -EIO);
    CHECK(dma_set_coherent_mask(device, DMA_BIT_MASK(24)) == -EIO);
    CHECK(dma_set_mask_and_coherent(device, DMA_BIT_MASK(24)) == -EIO);
    CHECK(dma_set_mask(device, DMA_BIT_MASK(31)) == 0);
    CHECK(dma_set_coherent_mask(device, 0x61ffffffu) == 0);
    void *buffer = dma_alloc_coherent(device, 3 * PAGE_SIZE, &handle, GFP_KERNEL);
    CHECK(buffer != NULL && handle + 3 * PAGE_SIZE - 1 <= 0x61ffffffu && is_zero(buffer, 3));
    dma_free_coherent(device, 3 * PAGE_SIZE, buffer, handle);
    CHECK(dma_set_mask_and_coherent(device, DMA_BIT_MASK(64)) == 0);
    return 0;
}

/* One transfer in each direction: mapped, synchronised, unmapped; what a device would have written is there afterwards. */
int c_unit_streaming(const struct device *device);
int c_unit_streaming(const struct device *device)
{
    struct page *page = alloc_pages(GFP_KERNEL, 0);
    CHECK(page != NULL);
    unsigned char *buffer = kmap_local_page(page);
    CHECK(buffer != NULL);
    for (unsigned int i = 0; i < 256; i++) buffer[i] = (unsigned char)i;
    for (unsigned int dir = DMA_BIDIRECTIONAL; dir < DMA_NONE; dir++) {
        dma_addr_t handle = dma_map_single(device, buffer, 256, (enum dma_data_direction)dir);
        CHECK(dma_mapping_error(device, handle) == 0);
        dma_sync_single_for_cpu(device, handle, 128, (enum dma_data_direction)dir);
        CHECK(buffer[127] == 127);
        dma_sync_single_for_device(device, handle, 128, (enum dma_data_direction)dir);
        dma_unmap_single(device, handle, 256, (enum dma_data_direction)dir);
        CHECK(buffer[0] == 0 && buffer[255] == 255);
        handle = dma_map_page(device, page, 64, 64, (enum dma_data_direction)dir);
        CHECK(dma_mapping_error(device, handle) == 0);
        dma_unmap_page(device, handle, 64, (enum dma_data_direction)dir);
        CHECK(buffer[64] == 64 && buffer[127] == 127);
    }
    struct scatterlist list[2];
    sg_init_table(list, 2);
    for (unsigned int i = 0; i < 2; i++) {
        list[i].page_link |= (unsigned long)page;
        list[i].offset = 128 * i;
        list[i].length = 64 + 32 * i;
    }
    CHECK(sg_is_last(&list[1]) && !sg_is_last(&list[0]));
    for (unsigned int dir = DMA_BIDIRECTIONAL; dir < DMA_NONE; dir++) {
        CHECK(dma_map_sg(device, list, 2, (enum dma_data_direction)dir) == 2);
        CHECK(sg_dma_len(&list[0]) == 64 && sg_dma_len(&list[1]) == 96);
        CHECK(sg_dma_address(&list[1]) != sg_dma_address(&list[0]));
        dma_sync_sg_for_cpu(device, list, 2, (enum dma_data_direction)dir);
        CHECK(buffer[128] == 128 && buffer[223] == 223);
        dma_sync_sg_for_device(device, list, 2, (enum dma_data_direction)dir);
        dma_unmap_sg(device, list, 2, (enum dma_data_direction)dir);
        CHECK(buffer[0] == 0 && buffer[128] == 128 && buffer[223] == 223);
    }
    CHECK(dma_map_sg(device, list, 0, DMA_TO_DEVICE) == 0);
    /* The second entry has no bytes: the first is not left mapped. */
    list[1].length = 0;
    CHECK(dma_map_sg(device, list, 2, DMA_TO_DEVICE) == 0);
    CHECK(dma_map_single(device, buffer, 0, DMA_TO_DEVICE) == DMA_MAPPING_ERROR);
    CHECK(dma_map_single(device, buffer, 64, DMA_NONE) == DMA_MAPPING_ERROR);
    CHECK(dma_map_single(NULL, buffer, 64, DMA_TO_DEVICE) == DMA_MAPPING_ERROR);
    CHECK(dma_map_page(device, NULL, 0, 64, DMA_TO_DEVICE) == DMA_MAPPING_ERROR);
    CHECK(dma_mapping_error(device, DMA_MAPPING_ERROR) == -ENOMEM);
    dma_debug_device_goes(device);
    kunmap_local(buffer);
    __free_pages(page, 0);
    return 0;
}

/* A device behind an IOMMU: by its own names, and by those that serve any. */
int c_unit_iommu(const struct device *device, unsigned int copies);
int c_unit_iommu(const struct device *device, unsigned int copies)
{
    dma_addr_t base = 0x30000000u, handle = 0;
    struct sg_table table = { NULL, 0, 0 };
    CHECK(arm_iommu_create_mapping(base + 1, 16 * PAGE_SIZE) == NULL);
    CHECK(arm_iommu_alloc_attrs(device, PAGE_SIZE, &handle, GFP_KERNEL, 0) == NULL);
    struct dma_iommu_mapping *mapping = arm_iommu_create_mapping(base, 16 * PAGE_SIZE);
    CHECK(mapping != NULL);
    CHECK(arm_iommu_attach_device(device, NULL) == -EINVAL && arm_iommu_attach_device(device, mapping) == 0);
    CHECK(arm_iommu_attach_device(device, mapping) == -EBUSY);
    arm_iommu_release_mapping(mapping);

    void *buffer = arm_iommu_alloc_attrs(device, 2 * PAGE_SIZE, &handle, GFP_KERNEL, 0);
    CHECK(buffer != NULL && handle == base && is_zero(buffer, 2) && holds_bytes(buffer, 2));
    CHECK(arm_iommu_get_sgtable(device, &table, buffer, handle, 2 * PAGE_SIZE, 0) == 0);
    CHECK(sg_page(table.sgl) == vmalloc_to_page(buffer) && table.sgl->length == 2 * PAGE_SIZE);
    sg_free_table(&table);
    CHECK(arm_iommu_mmap_attrs(device, NULL, buffer, handle, 2 * PAGE_SIZE, 0) == -EINVAL);
    arm_iommu_free_attrs(device, 2 * PAGE_SIZE, buffer, handle, 0);

    struct page *page = alloc_pages(GFP_KERNEL, 0);
    CHECK(page != NULL);
    handle = arm_iommu_map_page(device, page, 64, 128, DMA_BIDIRECTIONAL);
    CHECK(dma_mapping_error(device, handle) == 0 && (copies ? handle >= base : handle == base + 64));
    arm_iommu_sync_single_for_cpu(device, handle, 128, DMA_BIDIRECTIONAL);
    arm_iommu_sync_single_for_device(device, handle, 128, DMA_BIDIRECTIONAL);
    arm_iommu_unmap_page(device, handle, 128, DMA_BIDIRECTIONAL);
    struct scatterlist list[2];
    sg_init_table(list, 2);
    for (unsigned int i = 0; i < 2; i++) {
        list[i].page_link |= (unsigned long)page;
        list[i].offset = 128 * i;
        list[i].length = 64;
    }
    CHECK(arm_iommu_map_sg(device, list, 2, DMA_TO_DEVICE) == 2);
    CHECK(sg_dma_address(&list[0]) >= base && sg_dma_address(&list[1]) >= base);
    arm_iommu_sync_sg_for_cpu(device, list, 2, DMA_TO_DEVICE);
    arm_iommu_sync_sg_for_device(device, list, 2, DMA_TO_DEVICE);
    arm_iommu_unmap_sg(device, list, 2, DMA_TO_DEVICE);
    /* From inside a page to its end, and the same page from its start: one piece, if the device takes so much. */
    list[0].offset = PAGE_SIZE - 64;
    list[1].offset = 0;
    CHECK(dma_get_max_seg_size(device) == 65536 && dma_get_seg_boundary(device) == 0xffffffffu);
    CHECK(dma_map_sg(device, list, 2, DMA_TO_DEVICE) == (copies ? 2 : 1));
    CHECK(sg_dma_len(&list[0]) == (copies ? 64 : 128) && sg_dma_len(&list[1]) == (copies ? 64 : 0));
    CHECK(copies || sg_dma_address(&list[0]) == base + PAGE_SIZE - 64);
    dma_sync_sg_for_cpu(device, list, 2, DMA_TO_DEVICE);
    dma_sync_sg_for_device(device, list, 2, DMA_TO_DEVICE);
    dma_unmap_sg(device, list, 2, DMA_TO_DEVICE);
    CHECK(dma_set_max_seg_size(device, 0) == -EINVAL && dma_set_max_seg_size(device, 127) == 0);
    CHECK(dma_set_seg_boundary(device, 4096) == -EINVAL && dma_set_seg_boundary(NULL, 4095) == -EINVAL);
    CHECK(dma_map_sg(device, list, 2, DMA_TO_DEVICE) == 2 && sg_dma_len(&list[1]) == 64);
    dma_unmap_sg(device, list, 2, DMA_TO_DEVICE);
    CHECK(dma_set_max_seg_size(device, 65536) == 0 && dma_set_seg_boundary(device, 4095) == 0);
    CHECK(dma_map_sg(device, list, 2, DMA_TO_DEVICE) == 2 && dma_get_seg_boundary(device) == 4095);
    dma_unmap_sg(device, list, 2, DMA_TO_DEVICE);
    CHECK(dma_set_seg_boundary(device, 0xffffffffu) == 0);
    __free_pages(page, 0);
    arm_iommu_detach_device(device);
    arm_iommu_detach_device(device);
    CHECK(arm_iommu_map_page(device, NULL, 0, 64, DMA_TO_DEVICE) == DMA_MAPPING_ERROR);
    return 0;
}

/* With a cookie in the place of an address, and without. */
int c_unit_attributes(const struct device *device);
int c_unit_attributes(const struct device *device)
{
    dma_addr_t handle = 0;
    struct sg_table table = { NULL, 0, 0 };
    unsigned int hidden = DMA_ATTR_NO_KERNEL_MAPPING | DMA_ATTR_FORCE_CONTIGUOUS | DMA_ATTR_SKIP_CPU_SYNC;
    void *buffer = dma_alloc_attrs(device, 3 * PAGE_SIZE, &handle, GFP_KERNEL, hidden);
    CHECK(buffer != NULL && handle != 0 && is_vmalloc_addr(buffer) == 0 && find_vm_area(buffer) == NULL);
    CHECK(dma_get_sgtable(device, &table, buffer, handle, 3 * PAGE_SIZE) == -ENXIO && table.sgl == NULL);
    CHECK(dma_get_sgtable_attrs(device, &table, buffer, handle, 2 * PAGE_SIZE + 1, hidden) == 0);
    CHECK(table.nents == 1 && table.orig_nents == 1 && sg_is_last(table.sgl) && !sg_is_chain(table.sgl));
    CHECK(sg_page(table.sgl) == buffer && table.sgl->length == 3 * PAGE_SIZE && table.sgl->offset == 0);
    sg_free_table(&table);
    CHECK(table.sgl == NULL && table.nents == 0);
    CHECK(dma_mmap_attrs(device, NULL, buffer, handle, PAGE_SIZE, hidden) == -EINVAL);
    dma_free_attrs(device, 3 * PAGE_SIZE, buffer, handle, hidden);
    dma_free_attrs(device, 3 * PAGE_SIZE, NULL, 0, hidden);

    buffer = dma_alloc_wc(device, PAGE_SIZE, &handle, GFP_KERNEL);
    CHECK(buffer != NULL && is_zero(buffer, 1) && holds_bytes(buffer, 1));
    CHECK(dma_get_sgtable(device, &table, buffer, handle, PAGE_SIZE) == 0);
    CHECK(sg_page(table.sgl) == vmalloc_to_page(buffer));
    sg_free_table(&table);
    sg_free_table(&table);
    CHECK(dma_get_sgtable(device, &table, buffer, handle, 2 * PAGE_SIZE) == -ENXIO);
    CHECK(dma_mmap_wc(device, NULL, buffer, handle, PAGE_SIZE) == -EINVAL);
    dma_free_wc(device, PAGE_SIZE, buffer, handle);
    CHECK(dma_alloc_attrs(device, PAGE_SIZE, &handle, GFP_KERNEL, 0x80000000u | DMA_ATTR_WRITE_COMBINE) == NULL);
    CHECK(dma_alloc_attrs(device, ~0u, &handle, GFP_KERNEL, DMA_ATTR_NO_WARN) == NULL);

    struct scatterlist list[3];
    sg_init_table(list, 3);
    CHECK(!sg_is_last(list) && !sg_is_last(list + 1) && sg_is_last(list + 2) && sg_page(list) == NULL);
    CHECK(sg_alloc_table(&table, 0, GFP_KERNEL) == -EINVAL && sg_alloc_table(&table, 3, GFP_KERNEL) == 0);
    CHECK(sg_is_last(table.sgl + 2) && sg_dma_len(table.sgl) == 0 && sg_dma_address(table.sgl) == 0);
    sg_free_table(&table);
    return 0;
}

/* Video memory, which the device sees somewhere else. */
int c_unit_declared(const struct device *device, unsigned int physical);
int c_unit_declared(const struct device *device, unsigned int physical)
{
    dma_addr_t handle = 0, first = 0;
    CHECK(dma_declare_coherent_memory(NULL, physical, 0x1000, 4 * PAGE_SIZE) == -EINVAL);
    CHECK(dma_declare_coherent_memory(device, physical, 0x1000, PAGE_SIZE - 1) == -EINVAL);
    CHECK(dma_declare_coherent_memory(device, 0x60000000u, 0x1000, PAGE_SIZE) == -ENOMEM);
    CHECK(dma_declare_coherent_memory(device, physical, 0x1000, 4 * PAGE_SIZE) == 0);
    CHECK(dma_declare_coherent_memory(device, physical, 0x1000, 4 * PAGE_SIZE) == -EBUSY);
    void *one = dma_alloc_coherent(device, 1, &first, GFP_KERNEL);
    void *two = dma_alloc_coherent(device, PAGE_SIZE + 1, &handle, GFP_ATOMIC);
    CHECK(one != NULL && first == 0x1000 && two != NULL && handle == 0x3000 && is_zero(two, 2));
    CHECK(vmalloc_to_pfn(two) == (physical >> PAGE_SHIFT) + 2);
    CHECK(dma_alloc_coherent(device, 2 * PAGE_SIZE, &handle, GFP_KERNEL) == NULL);
    dma_release_coherent_memory(device);
    dma_free_coherent(device, PAGE_SIZE + 1, two, 0x3000);
    dma_free_coherent(device, 1, one, first);
    dma_release_coherent_memory(device);
    CHECK(find_area_containing(one) == NULL);
    return 0;
}

int c_unit_pools(const struct device *device);
int c_unit_pools(const struct device *device)
{
    dma_addr_t handle = 0, other = 0;
    CHECK(dma_pool_create("none", NULL, 16, 16, 0) == NULL && dma_pool_create("none", device, 0, 0, 0) == NULL);
    struct dma_pool *pool = dma_pool_create("descriptors", device, 24, 8, 64);
    CHECK(pool != NULL);
    void *first = dma_pool_alloc(pool, GFP_KERNEL, &handle);
    void *second = dma_pool_zalloc(pool, GFP_ATOMIC, &other);
    CHECK(first != NULL && (char *)second == (char *)first + 24 && other == handle + 24);
    CHECK(words(second)[0] == 0 && words(second)[5] == 0);
    dma_pool_free(pool, first, handle);
    dma_pool_free(pool, first, handle);
    dma_pool_free(pool, NULL, 0);
    CHECK(dma_pool_alloc(pool, GFP_KERNEL, &other) == first && other == handle);
    dma_pool_free(pool, first, handle);
    dma_pool_free(pool, second, handle + 24);
    dma_pool_destroy(pool);
    dma_pool_destroy(NULL);
    return 0;
}
