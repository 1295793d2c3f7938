package nexthop

import (
	"encoding/binary"
	"iter"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"uvs/packet"
)

// Route and neighbour attributes that golang.org/x/sys/unix doesn't name (linux/rtnetlink.h, linux/fib_rules.h).
const (
	rtaPref           = 20
	rtaNexthopID      = 30
	rtmFCloned        = 0x200
	fraSuppressNobody = 0xffffffff // FRA_SUPPRESS_PREFIXLEN of a rule that suppresses nothing
)

// attrs are the attributes of a netlink message, type and value. It ends at the first that lies about its length.
func attrs(b []byte) iter.Seq2[uint16, []byte] {
	return func(yield func(uint16, []byte) bool) {
		for len(b) >= unix.SizeofRtAttr {
			n := int(binary.NativeEndian.Uint16(b))
			if n < unix.SizeofRtAttr || n > len(b) {
				return
			}
			if !yield(binary.NativeEndian.Uint16(b[2:])&^(unix.NLA_F_NESTED|unix.NLA_F_NET_BYTEORDER), b[unix.SizeofRtAttr:n]) {
				return
			}
			b = b[min((n+3)&^3, len(b)):]
		}
	}
}

func attrUint32(v []byte) uint32 {
	if len(v) < 4 {
		return 0
	}
	return binary.NativeEndian.Uint32(v)
}

// attrAddr is an address of either family in network order; anything else gives the zero Addr.
func attrAddr(v []byte) packet.Addr {
	a, _ := netip.AddrFromSlice(v)
	return packet.AddrFrom(a)
}

// kernelRoute is a route as the kernel tells it (RTM_NEWROUTE).
type kernelRoute struct {
	prefix   netip.Prefix
	table    uint32
	priority uint32
	tos      uint8
	proto    uint8
	kind     uint8 // unix.RTN_*
	// opaque says that the route does what this package cannot express (encapsulation, a source prefix, nexthop objects
	// in a kernel that doesn't spell them out): the kernel must be asked per address.
	opaque bool
	cached bool        // no route of a table but an answer about one address
	pref   int         // of an IPv6 router (RFC 4191): 1 high, 0 medium, -1 low
	mtu    int         // of the route, 0 if it sets none
	source packet.Addr // preferred source, zero if it sets none
	hops   []kernelHop
}

// kernelHop is one way out of a route.
type kernelHop struct {
	index   int         // of the interface
	gateway packet.Addr // zero: the destination itself is the neighbour
	weight  int         // at least 1; 0: only when those before it don't answer
	dead    bool        // the kernel doesn't use it
}

// same says that two routes are one and the same but for what the kernel changes by itself.
func (k *kernelRoute) same(o *kernelRoute) bool {
	return k.prefix == o.prefix && k.table == o.table && k.priority == o.priority && k.tos == o.tos && k.kind == o.kind &&
		k.opaque == o.opaque && slices.EqualFunc(k.hops, o.hops, func(a, b kernelHop) bool {
		return a.index == b.index && a.gateway == b.gateway && a.weight == b.weight
	})
}

// parseRoute reads an RTM_NEWROUTE or RTM_DELROUTE message (struct rtmsg and attributes). ok is false for what isn't a
// route of packets: too short, of another family than IP.
func parseRoute(b []byte) (k kernelRoute, ok bool) {
	if len(b) < unix.SizeofRtMsg || b[0] != unix.AF_INET && b[0] != unix.AF_INET6 {
		return k, false
	}
	dst := netip.IPv4Unspecified()
	if b[0] == unix.AF_INET6 {
		dst = netip.IPv6Unspecified()
	}
	bits := int(b[1])
	k.opaque, k.cached = b[2] != 0, binary.NativeEndian.Uint32(b[8:])&rtmFCloned != 0
	k.tos, k.table, k.proto, k.kind = b[3], uint32(b[4]), b[5], b[7]
	var single kernelHop
	var viaObject bool
	for t, v := range attrs(b[unix.SizeofRtMsg:]) {
		switch t {
		case unix.RTA_DST:
			a, ok := netip.AddrFromSlice(v)
			if !ok || a.Is4() != dst.Is4() || a.Is4In6() {
				return k, false
			}
			dst = a
		case unix.RTA_TABLE:
			k.table = attrUint32(v)
		case unix.RTA_PRIORITY:
			k.priority = attrUint32(v)
		case unix.RTA_PREFSRC:
			k.source = attrAddr(v)
		case unix.RTA_METRICS:
			for t, v := range attrs(v) {
				if t == unix.RTAX_MTU {
					k.mtu = int(attrUint32(v))
				}
			}
		case unix.RTA_MULTIPATH:
			k.hops = parseMultipath(v, &k.opaque)
		case rtaNexthopID:
			viaObject = true
		case rtaPref:
			if len(v) > 0 {
				k.pref = int(int8(v[0]<<6) >> 6) // two bits, signed
			}
		default:
			single.parse(t, v, &k.opaque)
		}
	}
	if k.hops == nil && single.index != 0 {
		single.weight = 1
		single.dead = binary.NativeEndian.Uint32(b[8:])&unix.RTNH_F_DEAD != 0
		k.hops = []kernelHop{single}
	}
	k.opaque = k.opaque || viaObject && k.kind == unix.RTN_UNICAST && len(k.hops) == 0
	k.prefix = netip.PrefixFrom(dst, bits)
	return k, k.prefix.IsValid() && k.prefix == k.prefix.Masked()
}

// parse takes an attribute that a route and each of its ways have alike.
func (h *kernelHop) parse(t uint16, v []byte, opaque *bool) {
	switch t {
	case unix.RTA_OIF:
		h.index = int(attrUint32(v))
	case unix.RTA_GATEWAY:
		h.gateway = attrAddr(v)
	case unix.RTA_VIA: // a gateway of the other family: uint16 family, then the address
		if len(v) > 2 {
			h.gateway = attrAddr(v[2:])
		}
	case unix.RTA_ENCAP:
		*opaque = true
	}
}

// parseMultipath reads the struct rtnexthop of RTA_MULTIPATH.
func parseMultipath(b []byte, opaque *bool) []kernelHop {
	var hops []kernelHop
	for len(b) >= unix.SizeofRtNexthop {
		n := int(binary.NativeEndian.Uint16(b))
		if n < unix.SizeofRtNexthop || n > len(b) {
			break
		}
		h := kernelHop{
			index:  int(binary.NativeEndian.Uint32(b[4:])),
			weight: int(b[3]) + 1,
			dead:   b[2]&unix.RTNH_F_DEAD != 0,
		}
		for t, v := range attrs(b[unix.SizeofRtNexthop:n]) {
			h.parse(t, v, opaque)
		}
		hops = append(hops, h)
		b = b[min((n+3)&^3, len(b)):]
	}
	return hops
}

// kernelLink is an interface as the kernel tells it (RTM_NEWLINK).
type kernelLink struct {
	index int
	name  string
	mtu   int
	up    bool
	// carrier says that there is somebody at the other end. By it the kernel may take routes out without a word.
	carrier bool
	mac     packet.MAC // zero if it has none of that kind
}

// parseLink reads an RTM_NEWLINK or RTM_DELLINK message. ok is false for messages of another family: those of AF_BRIDGE
// speak of a bridge's port, and say that it is deleted when it merely leaves its bridge.
func parseLink(b []byte) (l kernelLink, ok bool) {
	if len(b) < unix.SizeofIfInfomsg || b[0] != unix.AF_UNSPEC {
		return l, false
	}
	l.index = int(binary.NativeEndian.Uint32(b[4:]))
	flags := binary.NativeEndian.Uint32(b[8:])
	l.up, l.carrier = flags&unix.IFF_UP != 0, flags&unix.IFF_LOWER_UP != 0
	for t, v := range attrs(b[unix.SizeofIfInfomsg:]) {
		switch t {
		case unix.IFLA_IFNAME:
			l.name = unix.ByteSliceToString(v)
		case unix.IFLA_MTU:
			l.mtu = int(attrUint32(v))
		case unix.IFLA_ADDRESS:
			if len(v) == len(l.mac) {
				l.mac = packet.MAC(v)
			}
		}
	}
	return l, l.name != ""
}

// kernelAddr is an address of the host on an interface (RTM_NEWADDR).
type kernelAddr struct {
	index  int
	prefix netip.Prefix // the address with the length of its segment's prefix
	scope  uint8
	flags  uint32 // unix.IFA_F_*
}

// parseAddr reads an RTM_NEWADDR or RTM_DELADDR message.
func parseAddr(b []byte) (a kernelAddr, ok bool) {
	if len(b) < unix.SizeofIfAddrmsg {
		return a, false
	}
	a.flags, a.scope = uint32(b[2]), b[3]
	a.index = int(binary.NativeEndian.Uint32(b[4:]))
	var local, address netip.Addr
	for t, v := range attrs(b[unix.SizeofIfAddrmsg:]) {
		switch t {
		case unix.IFA_LOCAL:
			local, _ = netip.AddrFromSlice(v)
		case unix.IFA_ADDRESS:
			address, _ = netip.AddrFromSlice(v)
		case unix.IFA_FLAGS:
			a.flags = attrUint32(v)
		}
	}
	if !local.IsValid() {
		local = address // IPv6; on a point-to-point link IFA_ADDRESS is the peer's
	}
	a.prefix = netip.PrefixFrom(local, int(b[1]))
	return a, a.prefix.IsValid()
}

// kernelNeighbour is an entry of the kernel's neighbour tables (RTM_NEWNEIGH).
type kernelNeighbour struct {
	index int
	addr  packet.Addr
	mac   packet.MAC
	state uint16 // unix.NUD_*
}

// Neighbour states by what they mean to a sender.
const (
	nudValid  = unix.NUD_PERMANENT | unix.NUD_NOARP | unix.NUD_REACHABLE | unix.NUD_PROBE | unix.NUD_STALE | unix.NUD_DELAY
	nudStatic = unix.NUD_PERMANENT | unix.NUD_NOARP
)

// parseNeighbour reads an RTM_NEWNEIGH or RTM_DELNEIGH message. ok is false for what isn't an Ethernet neighbour of an IP
// address: forwarding entries of bridges, proxy entries.
func parseNeighbour(b []byte) (n kernelNeighbour, ok bool) {
	if len(b) < unix.SizeofNdMsg || b[0] != unix.AF_INET && b[0] != unix.AF_INET6 || b[10]&unix.NTF_PROXY != 0 {
		return n, false
	}
	n.index = int(binary.NativeEndian.Uint32(b[4:]))
	n.state = binary.NativeEndian.Uint16(b[8:])
	hasMAC := false
	for t, v := range attrs(b[unix.SizeofNdMsg:]) {
		switch t {
		case unix.NDA_DST:
			n.addr = attrAddr(v)
		case unix.NDA_LLADDR:
			if hasMAC = len(v) == len(n.mac); hasMAC {
				n.mac = packet.MAC(v)
			}
		}
	}
	if n.state&nudValid != 0 && !hasMAC {
		n.state = unix.NUD_NONE
	}
	return n, !n.addr.IsZero()
}

// kernelRule is a routing policy rule (RTM_NEWRULE).
type kernelRule struct {
	family   uint8
	priority uint32
	table    uint32
	proto    uint8
	plain    bool // looks a table up for every packet
}

const frActToTable = 1 // FR_ACT_TO_TBL

// parseRule reads an RTM_NEWRULE message (struct fib_rule_hdr, laid out like rtmsg: family, dst_len, src_len, tos, table,
// two reserved bytes, action, flags).
func parseRule(b []byte) (r kernelRule, ok bool) {
	if len(b) < unix.SizeofRtMsg {
		return r, false
	}
	r.family, r.table = b[0], uint32(b[4])
	r.plain = b[1] == 0 && b[2] == 0 && b[3] == 0 && b[7] == frActToTable && binary.NativeEndian.Uint32(b[8:]) == 0
	for t, v := range attrs(b[unix.SizeofRtMsg:]) {
		switch t {
		case unix.FRA_PRIORITY:
			r.priority = attrUint32(v)
		case unix.FRA_TABLE:
			r.table = attrUint32(v)
		case unix.FRA_PROTOCOL:
			if len(v) > 0 {
				r.proto = v[0]
			}
		case unix.FRA_SUPPRESS_PREFIXLEN, unix.FRA_SUPPRESS_IFGROUP:
			r.plain = r.plain && attrUint32(v) == fraSuppressNobody
		case unix.FRA_PAD:
		default:
			r.plain = false
		}
	}
	return r, r.family == unix.AF_INET || r.family == unix.AF_INET6
}

// defaultRules says that the rules of one family, protocol guard's left out, do nothing but look up the tables local, main
// and, for IPv4, default, in this order.
func defaultRules(rules []kernelRule, family, guard uint8) bool {
	var own []kernelRule
	for _, r := range rules {
		if r.family == family && (guard == 0 || r.proto != guard) {
			own = append(own, r)
		}
	}
	slices.SortStableFunc(own, func(a, b kernelRule) int { return int(int64(a.priority) - int64(b.priority)) })
	want := []uint32{unix.RT_TABLE_LOCAL, unix.RT_TABLE_MAIN}
	if family == unix.AF_INET {
		want = append(want, unix.RT_TABLE_DEFAULT)
	}
	return slices.EqualFunc(own, want, func(r kernelRule, table uint32) bool { return r.plain && r.table == table })
}
