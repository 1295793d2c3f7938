package conntrack

import (
	"crypto/rand"
	"encoding/binary"
	"math/bits"

	"uvs/packet"
)

// hashKey makes the table's hash unpredictable to those who choose the tuples. The construction is that of wyhash (as in
// Go's own maps on machines without AES): 64 by 64 bit multiplications of words that are masked with the key, both
// halves of the product folded together.
type hashKey [4]uint64

func randomKey() (k hashKey) {
	var b [32]byte
	rand.Read(b[:]) // never fails (crypto/rand)
	for i := range k {
		k[i] = binary.NativeEndian.Uint64(b[8*i:])
	}
	return k
}

func fold(a, b uint64) uint64 {
	hi, lo := bits.Mul64(a, b)
	return hi ^ lo
}

// client hashes what both directions of a connection share. It decides the shard.
func (k *hashKey) client(proto uint8, addr packet.Addr, port uint16) uint64 {
	hi, lo := addr.Words()
	h := fold(lo^k[0], uint64(proto)<<16|uint64(port)^k[1])
	if hi != 0 {
		h = fold(h^hi, k[0])
	}
	return fold(h^k[2], k[3])
}

// tuple hashes the other side into a client hash: the VIP for In, the real server for Out. It decides the bucket and the
// tag. Without it, one client port to ever other ports of a port-zero service would make one long chain.
func (k *hashKey) tuple(client uint64, dir Dir, addr packet.Addr, port uint16) uint64 {
	hi, lo := addr.Words()
	h := client ^ lo
	if hi != 0 {
		h = fold(h^k[3], hi^k[2])
	}
	return fold(h, (uint64(dir)<<16|uint64(port))^k[1])
}

// Key is a flow with its hash: what a lookup needs, computed ahead of it.
type Key struct {
	hash          uint64
	shard         uint32
	client, other uint32 // IPv4 addresses in host order
	cport, oport  uint16
	proto         uint8
	dir           Dir
	kind          keyKind
	// Of an IPv6 flow instead of client and other. Others don't write them.
	client6, other6 packet.Addr
}

// keyKind says which entries there may be under a key.
type keyKind uint8

const (
	keyNone keyKind = iota // none, such as of a flow between the families
	keyIPv4
	keyIPv6
)

// addresses are those of the client and of the other side.
func (k *Key) addresses() (client, other packet.Addr) {
	if k.kind == keyIPv6 {
		return k.client6, k.other6
	}
	return packet.AddrFrom4(k.client), packet.AddrFrom4(k.other)
}

// Hash makes the key of f, which dir says whether it is a client's packet (In) or a server's (Out).
func (t *Table) Hash(f *packet.Flow, dir Dir, k *Key) {
	client, other, cport, oport := f.Src, f.Dst, f.SrcPort, f.DstPort
	if dir == Out {
		client, other, cport, oport = other, client, oport, cport
	}
	h := t.hash.client(f.Proto, client, cport)
	k.shard = uint32(h >> t.connShift)
	k.hash = t.hash.tuple(h, dir, other, oport)
	k.client, k.other, k.cport, k.oport = client.V4(), other.V4(), cport, oport
	k.proto, k.dir, k.kind = f.Proto, dir, keyIPv4
	if !client.Is4() || !other.Is4() {
		k.widen(client, other, uint32(len(t.conns))/2)
	}
}

// widen makes k, complete but for the addresses, one of an IPv6 flow, whose shards are wide behind those of IPv4. A flow
// between the families has no entries.
func (k *Key) widen(client, other packet.Addr, wide uint32) {
	k.kind = keyIPv6
	if client.Is4() != other.Is4() {
		k.kind = keyNone
	}
	k.client6, k.other6 = client, other
	k.shard += wide
}

// prefetchFrom is the number of entries from which Prefetch pays: fewer lie in the caches anyway, in spite of what the kernel
// does between two batches.
const prefetchFrom = 1 << 10

// Prefetch gets the processor to fetch what lookups of these keys will read, for all of them at once instead of one after
// the other: with a million connections a lookup takes a third of the time. It is to be called for a batch of packets
// between Hash and the lookups, and does nothing while the table is small.
func (t *Table) Prefetch(keys []Key) {
	if !canPrefetch || t.entries.Load() < t.prefetchFrom {
		return
	}
	for i := range keys {
		if k := &keys[i]; k.kind != keyNone {
			s := &t.conns[k.shard]
			s.lock()
			if s.n != 0 {
				prefetch((*[entrySize]byte)(s.bucket(k.hash)))
			}
			s.unlock()
		}
	}
	for i := range keys {
		if k := &keys[i]; k.kind != keyNone {
			s := &t.conns[k.shard]
			s.lock()
			if s.n != 0 {
				b := s.bucket(k.hash)
				for m := b.match(tagOf(k.hash)); m != 0; m &= m - 1 {
					slot := b.ref(bits.TrailingZeros32(m)) >> 1
					prefetch((*[entrySize]byte)(s.entry(slot)))
					if k.kind == keyIPv6 {
						prefetch((*[entrySize]byte)(s.addresses(slot)))
					}
				}
			}
			s.unlock()
		}
	}
}

// entryHash is the hash under which e, which lies in slot of s, is, or is to be, indexed for dir.
func (s *shard) entryHash(k *hashKey, slot uint32, e *entry, dir Dir) uint64 {
	client, virtual, server := s.tuple(slot, e)
	h := k.client(e.proto(), client, e.clientPort())
	if dir == Out {
		return k.tuple(h, Out, server, e.serverPort())
	}
	return k.tuple(h, In, virtual, e.virtualPort())
}
