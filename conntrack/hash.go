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

// key is a tuple to look for, with its hashes.
type key struct {
	hash          uint64
	shard         uint32
	client, other uint32 // IPv4 addresses in host order
	cport, oport  uint16
	proto         uint8
	dir           Dir
}

// flowKey makes the key of a packet's flow. ok is false if the table has no entries for such a flow.
func (t *Table) flowKey(f *packet.Flow, dir Dir, k *key) (ok bool) {
	client, other, cport, oport := f.Src, f.Dst, f.SrcPort, f.DstPort
	if dir == Out {
		client, other, cport, oport = other, client, oport, cport
	}
	if !client.Is4() || !other.Is4() {
		return false
	}
	h := t.hash.client(f.Proto, client, cport)
	k.shard = uint32(h >> t.connShift)
	k.hash = t.hash.tuple(h, dir, other, oport)
	k.client, k.other, k.cport, k.oport = client.V4(), other.V4(), cport, oport
	k.proto, k.dir = f.Proto, dir
	return true
}

// entryHash is the hash under which e is, or is to be, indexed for dir.
func (k *hashKey) entryHash(e *entry, dir Dir) uint64 {
	h := k.client(e.proto(), packet.AddrFrom4(e.client()), e.clientPort())
	if dir == Out {
		return k.tuple(h, Out, packet.AddrFrom4(e.server()), e.serverPort())
	}
	return k.tuple(h, In, packet.AddrFrom4(e.virtual()), e.virtualPort())
}
