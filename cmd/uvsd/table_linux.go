package main

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// tableMemory gives the connection table zeroed memory outside the Go heap, which the garbage collector never looks at.
// It is made resident at once, lest the packet path meet its page faults, and lives as long as the process.
func tableMemory(n int) ([]byte, error) {
	b, err := unix.Mmap(-1, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_POPULATE)
	if err != nil {
		return nil, fmt.Errorf("take %d bytes for the connection table: %w", n, err)
	}
	return b, nil
}

// maxConnections is how many connections half of the machine's memory holds, at 110 bytes each.
func maxConnections() int {
	var si unix.Sysinfo_t
	if err := unix.Sysinfo(&si); err != nil {
		return 0 // the table's own default
	}
	return int(uint64(si.Totalram) * uint64(si.Unit) / 2 / 110)
}
