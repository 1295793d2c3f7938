package main

import (
	"math"

	"golang.org/x/sys/unix"

	"uvs/conntrack"
)

// entryBytes is what a connection costs, all told.
const entryBytes = 110

// availablePages is the memory that new connections may still take, in pages: the machine's free memory, or what the table's
// limit leaves if that is less. The defences against floods go by it.
func availablePages(s conntrack.Stats, limit int) int {
	var si unix.Sysinfo_t
	if err := unix.Sysinfo(&si); err != nil {
		return math.MaxInt
	}
	page := unix.Getpagesize()
	free := int((si.Freeram + si.Bufferram) * uint64(si.Unit) / uint64(page))
	if limit == 0 {
		return free
	}
	return min(free, max(0, limit-s.Conns-s.Templates)*entryBytes/page)
}

// maxConnections is how many connections half of the machine's memory holds, at entryBytes each.
func maxConnections() int {
	var si unix.Sysinfo_t
	if err := unix.Sysinfo(&si); err != nil {
		return 0 // the table's own default
	}
	return int(uint64(si.Totalram) * uint64(si.Unit) / 2 / entryBytes)
}
