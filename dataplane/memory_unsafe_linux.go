package dataplane

import "unsafe"

// alignment is how many bytes of b lie before the first that a huge page may begin with.
func alignment(b []byte) int {
	return int(-uintptr(unsafe.Pointer(unsafe.SliceData(b))) & (hugePage - 1))
}
