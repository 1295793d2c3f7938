package conntrack

import (
	"encoding/binary"

	"uvs/packet"
	"uvs/service"
)

// addresses is a view of the second line of an entry for IPv6, in the machine's byte order: client, virtual and server
// address, 16 bytes each in two words, and 16 bytes unused. The server's may be an IPv4 address.
type addresses [entrySize]byte

func (a *addresses) at(i int) packet.Addr {
	return packet.AddrFromWords(binary.NativeEndian.Uint64(a[i:]), binary.NativeEndian.Uint64(a[i+8:]))
}

func (a *addresses) put(i int, addr packet.Addr) {
	hi, lo := addr.Words()
	binary.NativeEndian.PutUint64(a[i:], hi)
	binary.NativeEndian.PutUint64(a[i+8:], lo)
}

func (a *addresses) client() packet.Addr  { return a.at(0) }
func (a *addresses) virtual() packet.Addr { return a.at(16) }
func (a *addresses) server() packet.Addr  { return a.at(32) }

// addresses returns those of the entry in slot of a shard for IPv6.
func (s *shard) addresses(slot uint32) *addresses { return (*addresses)(s.entry(slot + 1)) }

// tuple returns the addresses of e, which lies in slot of s, whatever its family.
func (s *shard) tuple(slot uint32, e *entry) (client, virtual, server packet.Addr) {
	if s.wide() {
		a := s.addresses(slot)
		return a.client(), a.virtual(), a.server()
	}
	client, virtual, server = packet.AddrFrom4(e.client4()), packet.AddrFrom4(e.virtual4()), packet.AddrFrom4(e.server4())
	if e.life()&lifeForeign != 0 {
		if rs := s.servers.At(e.rs()); rs != nil {
			server = rs.IP
		}
	}
	return client, virtual, server
}

// setTuple writes the addresses of e. reachable said yes to them.
func (s *shard) setTuple(slot uint32, e *entry, client, virtual, server packet.Addr) {
	if s.wide() {
		a := s.addresses(slot)
		a.put(0, client)
		a.put(16, virtual)
		a.put(32, server)
		return
	}
	e.setU32(0, client.V4())
	e.setU32(4, virtual.V4())
	e.setU32(8, server.V4())
	if !server.Is4() {
		e.setLife(e.life() | lifeForeign)
	}
}

// reachable says that an entry may have this client and this server. Between the families only a tunnel leads; an IPv4
// entry then has no room for the server's address, which must be the real server's own.
func reachable(client, server packet.Addr, m service.Method, rs *service.RealServer) bool {
	if client.Is4() == server.Is4() {
		return true
	}
	return m == service.Tunnel && rs != nil && rs.IP == server
}

// matches says that e, an IPv6 entry in slot of s, is indexed under k.
func (s *shard) matches(slot uint32, e *entry, k *Key) bool {
	if e.clientPort() != k.cport || e.proto() != k.proto {
		return false
	}
	a := s.addresses(slot)
	if k.dir == Out {
		return e.serverPort() == k.oport && a.client() == k.client6 && a.server() == k.other6
	}
	return e.virtualPort() == k.oport && a.client() == k.client6 && a.virtual() == k.other6
}

// sameReply says that the server's answers look alike in both entries.
func (s *shard) sameReply(slot, other uint32) bool {
	e, o := s.entry(slot), s.entry(other)
	if e.clientPort() != o.clientPort() || e.serverPort() != o.serverPort() || e.proto() != o.proto() {
		return false
	}
	if s.wide() {
		a, b := s.addresses(slot), s.addresses(other)
		return a.client() == b.client() && a.server() == b.server()
	}
	return e.client4() == o.client4() && e.server4() == o.server4()
}
