/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * The kernel as C code sees it: virtually contiguous memory, mappings, areas of addresses, pages, coherent buffers.
 *
 * What a function does stands at the function of that name in kernel/linux. In short:
 *
 *   a pointer    null on failure, with a line on the console, except where nothing was asked for, or more than there can be
 *   an int       0, or the negative of an error number below
 *   void         what cannot be done is said on the console, and changes nothing; what must not be asked ends the kernel
 *
 * Functions that make or end areas are not called in handlers, nor with interrupts off; vfree_atomic is, and the lookups.
 * Compile with --target=armv7a-none-eabi -ffreestanding -mfloat-abi=soft: the kernel has no floating point and no C library.
 */
#ifndef MAPWRIGHT_H
#define MAPWRIGHT_H

#include <stddef.h>
#include <stdint.h>

#define PAGE_SHIFT 12
#define PAGE_SIZE (1u << PAGE_SHIFT)

/* Error numbers; functions return them negated. */
#define EIO 5
#define ENXIO 6
#define ENOMEM 12
#define EBUSY 16
#define EINVAL 22

/* What memory is asked for. Other bits up to 0x100000 are known and mean nothing here; bits beyond are refused, but not by the dma_ and
 * arm_iommu_ names: those look for __GFP_WAIT, __GFP_ZERO and __GFP_NOWARN, and for nothing else. */
typedef unsigned int gfp_t;
#define __GFP_DMA 0x01u      /* of few address lines */
#define __GFP_HIGHMEM 0x02u  /* high memory will do */
#define __GFP_DMA32 0x04u    /* all there is */
#define __GFP_WAIT 0x10u     /* the caller may sleep */
#define __GFP_HIGH 0x20u
#define __GFP_IO 0x40u
#define __GFP_FS 0x80u
#define __GFP_NOWARN 0x200u  /* no line on the console */
#define __GFP_ZERO 0x8000u
#define __GFP_THISNODE 0x40000u /* the node that is named, and no other */
#define GFP_KERNEL (__GFP_WAIT | __GFP_IO | __GFP_FS)
#define GFP_ATOMIC __GFP_HIGH
#define GFP_HIGHUSER (GFP_KERNEL | __GFP_HIGHMEM)

/* How a mapping may be used. */
typedef unsigned int pgprot_t;
#define PAGE_KERNEL 0u
#define PAGE_KERNEL_RO 1u
#define PAGE_KERNEL_NOCACHE 2u      /* registers: each access as written */
#define PAGE_KERNEL_WRITECOMBINE 3u /* memory that no cache holds */

typedef unsigned int phys_addr_t;
typedef unsigned int dma_addr_t;

/* The record of a page frame. What is in it is the kernel's; adjacent frames have adjacent records. */
struct page {
    uint32_t kernels_own[4];
} __attribute__((aligned(16)));

/* Flags of an area. */
#define VM_IOREMAP 0x01u
#define VM_ALLOC 0x02u
#define VM_MAP 0x04u
#define VM_USERMAP 0x08u
#define VM_VPAGES 0x10u
#define VM_DMA 0x40u

/* Memory types that memremap may try, in this order. */
#define MEMREMAP_WB 0x01u
#define MEMREMAP_WT 0x02u
#define MEMREMAP_WC 0x04u

/* The descriptor of an area. Who owns the area may write flags, pages, nr_pages, phys_addr and caller. */
struct vm_struct {
    struct vm_struct *next;
    void *addr;
    unsigned long size; /* bytes, the guard page counted while the area lives */
    unsigned long flags;
    struct page **pages; /* of memory of vmalloc, its pages in their order */
    unsigned int nr_pages;
    phys_addr_t phys_addr; /* the base of a contiguous mapping, or zero */
    const void *caller;
};

struct mm_struct;
struct device;
struct dma_pool;
struct dma_iommu_mapping;

/* What is asked of a DMA buffer beyond its size. Bits up to 0x200 that have no name here mean nothing; others are refused. */
#define DMA_ATTR_WRITE_COMBINE 0x004u
#define DMA_ATTR_NO_KERNEL_MAPPING 0x010u /* the pointer may be a cookie, for the functions that take attributes */
#define DMA_ATTR_SKIP_CPU_SYNC 0x020u
#define DMA_ATTR_FORCE_CONTIGUOUS 0x040u
#define DMA_ATTR_NO_WARN 0x100u

/* A piece of memory in a list. */
struct scatterlist {
    unsigned long page_link; /* a page pointer, and two bits: see below */
    unsigned int offset;
    unsigned int length;
    dma_addr_t dma_address;
    unsigned int dma_length;
};
struct sg_table {
    struct scatterlist *sgl;
    unsigned int nents;
    unsigned int orig_nents;
};
#define SG_CHAIN 1ul /* no piece: it points to the entries that follow */
#define SG_END 2ul   /* the last entry */
#define sg_is_chain(sg) ((sg)->page_link & SG_CHAIN)
#define sg_is_last(sg) ((sg)->page_link & SG_END)
#define sg_page(sg) ((struct page *)((sg)->page_link & ~(SG_CHAIN | SG_END)))
#define sg_dma_address(sg) ((sg)->dma_address)
#define sg_dma_len(sg) ((sg)->dma_length)

/* A window in a program's addresses. */
#define VM_RESERVED 0x00080000u
struct vm_area_struct {
    struct mm_struct *vm_mm;
    unsigned long vm_start;
    unsigned long vm_end;
    unsigned int vm_pgoff;
    unsigned int vm_flags;
};

_Static_assert(sizeof(void *) == 4 && sizeof(unsigned long) == 4, "a target of 32 bits");
_Static_assert(sizeof(struct page) == 16, "the stride of page pointers");
_Static_assert(sizeof(struct vm_struct) == 32, "eight words");
_Static_assert(offsetof(struct vm_struct, next) == 0, "next");
_Static_assert(offsetof(struct vm_struct, addr) == 4, "addr");
_Static_assert(offsetof(struct vm_struct, size) == 8, "size");
_Static_assert(offsetof(struct vm_struct, flags) == 12, "flags");
_Static_assert(offsetof(struct vm_struct, pages) == 16, "pages");
_Static_assert(offsetof(struct vm_struct, nr_pages) == 20, "nr_pages");
_Static_assert(offsetof(struct vm_struct, phys_addr) == 24, "phys_addr");
_Static_assert(offsetof(struct vm_struct, caller) == 28, "caller");
_Static_assert(sizeof(struct vm_area_struct) == 20, "five words");
_Static_assert(offsetof(struct vm_area_struct, vm_start) == 4, "vm_start");
_Static_assert(offsetof(struct vm_area_struct, vm_end) == 8, "vm_end");
_Static_assert(offsetof(struct vm_area_struct, vm_pgoff) == 12, "vm_pgoff");
_Static_assert(offsetof(struct vm_area_struct, vm_flags) == 16, "vm_flags");
_Static_assert(sizeof(struct scatterlist) == 20, "five words");
_Static_assert(offsetof(struct scatterlist, dma_address) == 12, "dma_address");
_Static_assert(sizeof(struct sg_table) == 12, "three words");

/* Memory. */
void *vmalloc(unsigned int size);
void *vzalloc(unsigned int size);
void *vmalloc_huge(unsigned int size);
void *vmalloc_32(unsigned int size);
void *vmalloc_user(unsigned int size);
void *vmalloc_32_user(unsigned int size);
void *vmalloc_node(unsigned int size, int node);
void *__vmalloc(unsigned int size, gfp_t gfp, pgprot_t prot);
void *__vmalloc_node(unsigned int size, gfp_t gfp, pgprot_t prot, int node);
void *vmalloc_array(unsigned int n, unsigned int size);
void *vcalloc(unsigned int n, unsigned int size);
void *vrealloc(const void *p, unsigned int size, gfp_t gfp);
void vfree(const void *addr);
void vfree_atomic(const void *addr);
void *kvmalloc(unsigned int size, gfp_t gfp);
void kvfree(const void *object);
void kfree(const void *object);

/* Memory for code: written, or executed once it is sealed. */
void *vmalloc_exec(unsigned int size);
int set_memory_rox(unsigned long addr, int numpages);

/* Mappings of pages, of frames by number, and of registers. */
void *vmap(struct page *const *pages, unsigned int count, unsigned int flags, pgprot_t prot);
void *vmap_pfn(const unsigned int *pfns, unsigned int count, pgprot_t prot);
void vunmap(const void *addr);
void *vm_map_ram(struct page *const *pages, unsigned int count, int node);
void vm_unmap_ram(const void *mem, unsigned int count);
void *ioremap(phys_addr_t phys_addr, unsigned int size);
void *ioremap_wc(phys_addr_t phys_addr, unsigned int size);
void *ioremap_np(phys_addr_t phys_addr, unsigned int size);
void *ioremap_exec(phys_addr_t phys_addr, unsigned int size);
void *ioremap_shared(phys_addr_t phys_addr, unsigned int size);
void iounmap(const void *addr);
void *memremap(phys_addr_t offset, unsigned int size, unsigned long flags);
void memunmap(const void *addr);

/* What is where. */
struct vm_struct *find_vm_area(const void *addr);
struct vm_struct *find_area_containing(const void *addr);
struct page *vmalloc_to_page(const void *addr);
unsigned int vmalloc_to_pfn(const void *addr);
int is_vmalloc_addr(const void *addr);
long vread(char *buf, const void *addr, unsigned long count);
long vwrite(const char *buf, void *addr, unsigned long count);

/* Areas of addresses, for whoever maps there what it likes. */
struct vm_struct *get_vm_area(unsigned int size, unsigned int flags);
struct vm_struct *get_vm_area_node(unsigned int size, unsigned int flags, int node, gfp_t gfp);
struct vm_struct *__get_vm_area(unsigned int size, unsigned int flags, unsigned int start, unsigned int end);
struct vm_struct *get_vm_area_caller(unsigned int size, unsigned int flags, const void *caller);
struct vm_struct *__get_vm_area_caller(unsigned int size, unsigned int flags, unsigned int start, unsigned int end,
                                       const void *caller);
struct vm_struct *alloc_vm_area(unsigned int size);
int map_vm_area(struct vm_struct *area, pgprot_t prot, struct page ***pages);
void unmap_vm_area(struct vm_struct *area);
void unmap_kernel_range(unsigned int addr, unsigned int size);
struct vm_struct *remove_vm_area(const void *addr);
void free_vm_area(struct vm_struct *area);
void *__vmalloc_area(struct vm_struct *area, gfp_t gfp, pgprot_t prot);
void *__vmalloc_area_node(struct vm_struct *area, gfp_t gfp, pgprot_t prot, int node);
/* Weak: whoever defines it is called when alloc_vm_area has made tables. */
void vmalloc_sync_all(void);

/* Pages. */
struct page *alloc_pages(gfp_t gfp, unsigned int order);
struct page *alloc_pages_node(int nid, gfp_t gfp, unsigned int order);
void __free_pages(struct page *page, unsigned int order);
void *kmap_local_page(const struct page *page);
void kunmap_local(const void *addr);

/* Coherent buffers, and windows of programs. */
void *dma_alloc_coherent(const struct device *dev, unsigned int size, dma_addr_t *dma_handle, gfp_t gfp);
void dma_free_coherent(const struct device *dev, unsigned int size, const void *cpu_addr, dma_addr_t dma_handle);
void *dma_alloc_attrs(const struct device *dev, unsigned int size, dma_addr_t *dma_handle, gfp_t gfp, unsigned int attrs);
void dma_free_attrs(const struct device *dev, unsigned int size, const void *cpu_addr, dma_addr_t dma_handle,
                    unsigned int attrs);
void *dma_alloc_wc(const struct device *dev, unsigned int size, dma_addr_t *dma_handle, gfp_t gfp);
void dma_free_wc(const struct device *dev, unsigned int size, const void *cpu_addr, dma_addr_t dma_handle);
int dma_mmap_wc(const struct device *dev, struct vm_area_struct *vma, const void *cpu_addr, dma_addr_t dma_handle,
                unsigned int size);
int dma_mmap_attrs(const struct device *dev, struct vm_area_struct *vma, const void *cpu_addr, dma_addr_t dma_handle,
                   unsigned int size, unsigned int attrs);
/* The pages of a buffer. dma_map_sg takes such a table, for whatever device, if the buffer lies at its linear address, cacheable: what a device
 * that snoops has on the bus, and behind an IOMMU with DMA_ATTR_FORCE_CONTIGUOUS or made where one may not sleep. Every other has a mapping of its
 * own, by which the processor sees it, and is refused by a warning that names the frame and its owner. */
int dma_get_sgtable(const struct device *dev, struct sg_table *sgt, const void *cpu_addr, dma_addr_t handle,
                    unsigned int size);
int dma_get_sgtable_attrs(const struct device *dev, struct sg_table *sgt, const void *cpu_addr, dma_addr_t handle,
                          unsigned int size, unsigned int attrs);
int dma_mmap_coherent(const struct device *dev, struct vm_area_struct *vma, const void *cpu_addr, dma_addr_t dma_handle,
                      unsigned int size);
void init_consistent_dma_size(unsigned int size);
/* Lists of pieces of memory. */
int sg_alloc_table(struct sg_table *table, unsigned int nents, gfp_t gfp);
void sg_free_table(struct sg_table *table);
void sg_init_table(struct scatterlist *sgl, unsigned int nents);
/* Memory of a device's own, where all its coherent buffers lie from then on. */
int dma_declare_coherent_memory(const struct device *dev, phys_addr_t phys_addr, dma_addr_t device_addr, unsigned int size);
void dma_release_coherent_memory(const struct device *dev);
/* Small blocks of coherent memory. */
struct dma_pool *dma_pool_create(const char *name, const struct device *dev, unsigned int size, unsigned int align,
                                 unsigned int boundary);
void *dma_pool_alloc(struct dma_pool *pool, gfp_t mem_flags, dma_addr_t *handle);
void dma_pool_free(struct dma_pool *pool, const void *vaddr, dma_addr_t dma);
void dma_pool_destroy(struct dma_pool *pool);
#define dma_pool_zalloc(pool, mem_flags, handle) dma_pool_alloc(pool, (mem_flags) | __GFP_ZERO, handle)
/* The last address that a device reaches: of memory that is mapped for it, of its coherent buffers, of both. */
#define DMA_BIT_MASK(n) ((n) == 64 ? ~0ull : (1ull << (n)) - 1)
int dma_set_mask(const struct device *dev, uint64_t mask);
int dma_set_coherent_mask(const struct device *dev, uint64_t mask);
int dma_set_mask_and_coherent(const struct device *dev, uint64_t mask);

/* Memory that is a device's for one transfer. What is mapped is not used before it is unmapped or synchronised. What is
 * mapped from the device is only read in between: what is written there is lost where a copy was made. Who writes, too,
 * maps it both ways. */
enum dma_data_direction {
    DMA_BIDIRECTIONAL = 0,
    DMA_TO_DEVICE = 1,
    DMA_FROM_DEVICE = 2,
    DMA_NONE = 3
};
#define DMA_MAPPING_ERROR ((dma_addr_t)~0u)
dma_addr_t dma_map_single(const struct device *dev, void *ptr, unsigned int size, enum dma_data_direction dir);
void dma_unmap_single(const struct device *dev, dma_addr_t dma_addr, unsigned int size, enum dma_data_direction dir);
dma_addr_t dma_map_page(const struct device *dev, const struct page *page, unsigned int offset, unsigned int size,
                        enum dma_data_direction dir);
void dma_unmap_page(const struct device *dev, dma_addr_t dma_addr, unsigned int size, enum dma_data_direction dir);
/* What is synchronised is part of one mapping. What goes on behind the last page of one, behind an IOMMU, or behind the last byte of a copy,
 * is refused and named, and changes nothing. On the bus nobody knows where a mapping ends that is no copy, unless dma_debug=on checks. */
void dma_sync_single_for_cpu(const struct device *dev, dma_addr_t dma_addr, unsigned int size,
                             enum dma_data_direction dir);
void dma_sync_single_for_device(const struct device *dev, dma_addr_t dma_addr, unsigned int size,
                                enum dma_data_direction dir);
int dma_mapping_error(const struct device *dev, dma_addr_t dma_addr);
/* Lists: how many pieces the device sees, of which the first entries then say where; 0 if nothing was mapped. That may be fewer than
 * entries, behind an IOMMU: those are joined whose seams are those of pages, as far as the device takes them as one. Whoever ends or
 * synchronises a list names as many entries as it was mapped with. */
int dma_set_max_seg_size(const struct device *dev, unsigned int size);
int dma_set_seg_boundary(const struct device *dev, unsigned int mask);
unsigned int dma_get_max_seg_size(const struct device *dev);
unsigned int dma_get_seg_boundary(const struct device *dev);
int dma_map_sg(const struct device *dev, struct scatterlist *sg, unsigned int nents, enum dma_data_direction dir);
void dma_unmap_sg(const struct device *dev, struct scatterlist *sg, unsigned int nents, enum dma_data_direction dir);
void dma_sync_sg_for_cpu(const struct device *dev, struct scatterlist *sg, unsigned int nelems,
                         enum dma_data_direction dir);
void dma_sync_sg_for_device(const struct device *dev, struct scatterlist *sg, unsigned int nelems,
                            enum dma_data_direction dir);
/* The driver lets a device go: with dma_debug=on, mappings that are left are counted, and one is named. */
void dma_debug_device_goes(const struct device *dev);

/* Devices behind an IOMMU: a device that is attached sees all that it is given, by whatever name, at addresses of the mapping. One that
 * is attached to nothing is refused by the names here. The mapping lives until it is let go, no device is attached any more, and the last
 * buffer of scattered frames that was made through it is freed. A device sees whole pages of what is mapped for it in place: what else lies in its
 * first page and in its last one is seen, too, unless copies are forced (swiotlb=force). */
struct dma_iommu_mapping *arm_iommu_create_mapping(dma_addr_t base, unsigned int size);
void arm_iommu_release_mapping(struct dma_iommu_mapping *mapping);
int arm_iommu_attach_device(const struct device *dev, struct dma_iommu_mapping *mapping);
void arm_iommu_detach_device(const struct device *dev);
void *arm_iommu_alloc_attrs(const struct device *dev, unsigned int size, dma_addr_t *handle, gfp_t gfp, unsigned int attrs);
void arm_iommu_free_attrs(const struct device *dev, unsigned int size, const void *cpu_addr, dma_addr_t handle,
                          unsigned int attrs);
int arm_iommu_mmap_attrs(const struct device *dev, struct vm_area_struct *vma, const void *cpu_addr, dma_addr_t dma_addr,
                         unsigned int size, unsigned int attrs);
/* As dma_get_sgtable: dma_map_sg takes the table of no buffer of scattered frames. */
int arm_iommu_get_sgtable(const struct device *dev, struct sg_table *sgt, const void *cpu_addr, dma_addr_t dma_addr,
                          unsigned int size, unsigned int attrs);
dma_addr_t arm_iommu_map_page(const struct device *dev, const struct page *page, unsigned int offset, unsigned int size,
                              enum dma_data_direction dir);
void arm_iommu_unmap_page(const struct device *dev, dma_addr_t handle, unsigned int size, enum dma_data_direction dir);
int arm_iommu_map_sg(const struct device *dev, struct scatterlist *sg, unsigned int nents, enum dma_data_direction dir);
void arm_iommu_unmap_sg(const struct device *dev, struct scatterlist *sg, unsigned int nents, enum dma_data_direction dir);
void arm_iommu_sync_single_for_cpu(const struct device *dev, dma_addr_t handle, unsigned int size,
                                   enum dma_data_direction dir);
void arm_iommu_sync_single_for_device(const struct device *dev, dma_addr_t handle, unsigned int size,
                                      enum dma_data_direction dir);
void arm_iommu_sync_sg_for_cpu(const struct device *dev, struct scatterlist *sg, unsigned int nelems,
                               enum dma_data_direction dir);
void arm_iommu_sync_sg_for_device(const struct device *dev, struct scatterlist *sg, unsigned int nelems,
                                  enum dma_data_direction dir);

int remap_vmalloc_range(struct vm_area_struct *vma, const void *addr, unsigned int pgoff);

#endif
