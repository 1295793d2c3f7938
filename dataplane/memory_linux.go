package dataplane

import (
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sys/unix"
)

// hugePage is the size of a huge page on amd64, and on arm64 with pages of 4 KiB. Where it is another, nothing is lost but
// what huge pages would gain.
const hugePage = 2 << 20

// spare is what is left of the last mapping.
var spare struct {
	sync.Mutex
	mem []byte
}

// TableMemory gives the connection table zeroed memory outside the Go heap, which the garbage collector never looks at.
// It is made resident at once, lest the packet path meet its page faults, lies in huge pages where the kernel has them, so
// that a lookup among millions misses the TLB less, and lives as long as the process.
func TableMemory(n int) ([]byte, error) {
	spare.Lock()
	defer spare.Unlock()
	if len(spare.mem) < n {
		mem, err := mapHuge((n + hugePage - 1) / hugePage * hugePage)
		if err != nil {
			return nil, fmt.Errorf("take %d bytes for the connection table: %w", n, err)
		}
		spare.mem = mem // a rest that was too small is not worth keeping: callers take equal pieces
	}
	b := spare.mem[:n:n]
	spare.mem = spare.mem[n:]
	return b, nil
}

// mapHuge maps n bytes, a multiple of hugePage, at a multiple of it.
func mapHuge(n int) ([]byte, error) {
	const rw = unix.PROT_READ | unix.PROT_WRITE
	b, err := unix.Mmap(-1, 0, n+hugePage, rw, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
	if err != nil {
		return nil, err
	}
	from := alignment(b) // the rest on both sides stays mapped: addresses, no memory
	mem := b[from : from+n]
	_ = unix.Madvise(mem, unix.MADV_HUGEPAGE) // refused where there are none
	if err := unix.Madvise(mem, unix.MADV_POPULATE_WRITE); err == unix.EINVAL {
		for i := 0; i < n; i += unix.Getpagesize() { // before Linux 5.14
			mem[i] = 0
		}
	} else if err != nil {
		return nil, errors.Join(err, unix.Munmap(b))
	}
	return mem, nil
}
