package service

import (
	"maps"
	"math/bits"
)

// directory is an immutable map in many small parts. Its successor shares those that it doesn't change: among 100,000
// entries a change copies some dozens.
type directory[K comparable, V any] struct {
	parts []map[K]V // a power of two of them; nil: the directory is empty
	count int
}

// partSize is how many entries a part has on average when a directory is built.
const partSize = 64

// newDirectory returns a draft with room for n entries.
func newDirectory[K comparable, V any](n int) *draft[K, V] {
	parts := 1 << bits.Len(uint(n/partSize))
	d := &draft[K, V]{directory[K, V]{parts: make([]map[K]V, parts)}, make([]bool, parts)}
	for i := range d.parts {
		d.parts[i], d.own[i] = make(map[K]V), true
	}
	return d
}

// get returns the value of k, whose hash is h, or the zero value.
func (d *directory[K, V]) get(k K, h uint64) V {
	if len(d.parts) == 0 {
		var none V
		return none
	}
	return d.parts[h&uint64(len(d.parts)-1)][k]
}

// all calls yield for every entry, in no order.
func (d *directory[K, V]) all(yield func(K, V) bool) {
	for _, part := range d.parts {
		for k, v := range part {
			if !yield(k, v) {
				return
			}
		}
	}
}

// change returns a draft of d's successor.
func (d *directory[K, V]) change() *draft[K, V] {
	parts := make([]map[K]V, len(d.parts))
	copy(parts, d.parts)
	return &draft[K, V]{directory[K, V]{parts, d.count}, make([]bool, len(parts))}
}

// outgrown says that the parts have become so large that the directory should be built anew.
func (d *directory[K, V]) outgrown() bool { return d.count > 4*partSize*max(1, len(d.parts)) }

// draft is a directory that is being made.
type draft[K comparable, V any] struct {
	directory[K, V]
	own []bool // the parts that no other directory has
}

// part is the part for a hash, to be written.
func (d *draft[K, V]) part(h uint64) map[K]V {
	i := h & uint64(len(d.parts)-1)
	if !d.own[i] {
		d.parts[i], d.own[i] = maps.Clone(d.parts[i]), true
	}
	return d.parts[i]
}

func (d *draft[K, V]) set(k K, h uint64, v V) {
	part := d.part(h)
	d.count -= len(part)
	part[k] = v
	d.count += len(part)
}

func (d *draft[K, V]) remove(k K, h uint64) {
	part := d.part(h)
	d.count -= len(part)
	delete(part, k)
	d.count += len(part)
}

// mix spreads words over a hash. Who configures services chooses them: there is nobody to guard against.
func mix(hi, lo uint64) uint64 {
	h, l := bits.Mul64(hi^0x9e3779b97f4a7c15, lo^0xd1b54a32d192ed03)
	return h ^ l
}
