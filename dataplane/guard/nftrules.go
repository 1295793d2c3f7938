package guard

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"uvs/packet"
)

// rule is one rule of a chain. Its comment says all that it depends on: rules with equal comments are equal.
type rule struct {
	comment string
	exprs   []expr.Any
}

// family is what the rules for IPv4 and IPv6 differ by.
type family struct {
	name                string
	etherType           uint16
	bits                int    // of an address
	source, destination uint32 // offsets of the addresses in the header
	icmp                byte   // protocol
	errors              [][2]byte
	sets                setNames
	address             nftables.SetDatatype
}

var (
	family4 = &family{
		name: "IPv4", etherType: packet.EtherIPv4, bits: 32, source: 12, destination: 16,
		icmp: packet.ProtoICMP, errors: [][2]byte{{3, 5}, {11, 12}},
		sets:    setNames{"answers", "anyport", "fragments", "servers", "local", "virtual"},
		address: nftables.TypeIPAddr,
	}
	family6 = &family{
		name: "IPv6", etherType: packet.EtherIPv6, bits: 128, source: 8, destination: 24,
		icmp: packet.ProtoICMPv6, errors: [][2]byte{{1, 4}},
		sets:    setNames{"answers6", "anyport6", "fragments6", "servers6", "local6", "virtual6"},
		address: nftables.TypeIP6Addr,
	}
	families = []*family{family4, family6}
)

// setNames are the names of the sets of a family.
type setNames struct {
	answers   string // address . protocol . port of servers' answers
	anyPort   string // address . protocol of servers that answer from all ports
	fragments string // address . protocol of all servers: later fragments have no ports
	servers   string // addresses of all servers
	local     string // the host's addresses, without fib
	virtual   string // virtual addresses
}

// familyOf is the family of an address.
func familyOf(a netip.Addr) *family {
	if a.Is4() {
		return family4
	}
	return family6
}

// size is the length in bytes of an address.
func (f *family) size() uint32 { return uint32(f.bits / 8) }

// Registers of nftables: four bytes each, so that fields loaded side by side are a concatenation. An address begins at
// reg0.
const reg0 = unix.NFT_REG32_00

// after is the register behind an address and n more.
func (f *family) after(n uint32) uint32 { return reg0 + f.size()/4 + n }

// rules are those of a chain for a family. All are about packets that come in from real servers for somebody else than the
// host: the servers can talk to the host as ever.
func (n *nft) rules(c chain, f *family) []rule {
	suffix := ", " + f.name
	if !n.fib {
		suffix += ", by the list of local addresses"
	}
	proto := l4proto(f.after(0))
	list := []rule{
		{"answers of NAT real servers: uvs has them", concat(f.from(), proto, sourcePort(f.after(1)), in(f.sets.answers))},
		{"likewise from any port", concat(f.from(), proto, in(f.sets.anyPort))},
		{"later fragments of such answers", concat(f.laterFragment(), f.from(), proto, in(f.sets.fragments))},
	}
	for _, e := range f.errors {
		list = append(list, rule{fmt.Sprintf("their ICMP errors %d to %d", e[0], e[1]), concat(f.from(), in(f.sets.servers), f.icmpType(e[0], e[1]))})
	}
	for _, p := range c.inner {
		if familyOf(p.Addr()) == f {
			list = append(list, rule{fmt.Sprintf("whatever comes from %v: uvs is its gateway", p), f.fromPrefix(p)})
		}
	}
	for i := range list {
		list[i].comment += suffix
		list[i].exprs = concat(f.is(), list[i].exprs, n.toOthers(f), drop())
	}
	return list
}

// fromVirtual is the rule for packets from virtual addresses to the host itself.
func (n *nft) fromVirtual(f *family) rule {
	r := rule{"answers of virtual addresses to the host: uvs has them, " + f.name, concat(f.is(), f.from(), in(f.sets.virtual))}
	local := []expr.Any{
		&expr.Fib{Register: reg0, FlagDADDR: true, ResultADDRTYPE: true},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg0, Data: binaryutil.NativeEndian.PutUint32(unix.RTN_LOCAL)},
	}
	if !n.fib {
		r.comment += ", by the list of local addresses"
		local = concat(f.to(), in(f.sets.local))
	}
	r.exprs = concat(r.exprs, local, drop())
	return r
}

func concat(parts ...[]expr.Any) (all []expr.Any) {
	for _, p := range parts {
		all = append(all, p...)
	}
	return all
}

func (f *family) is() []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyPROTOCOL, Register: reg0},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg0, Data: binary.BigEndian.AppendUint16(nil, f.etherType)},
	}
}

// from loads the source address.
func (f *family) from() []expr.Any {
	return []expr.Any{&expr.Payload{DestRegister: reg0, Base: expr.PayloadBaseNetworkHeader, Offset: f.source, Len: f.size()}}
}

// to loads the destination address.
func (f *family) to() []expr.Any {
	return []expr.Any{&expr.Payload{DestRegister: reg0, Base: expr.PayloadBaseNetworkHeader, Offset: f.destination, Len: f.size()}}
}

func l4proto(reg uint32) []expr.Any {
	return []expr.Any{&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg}}
}

// sourcePort matches no fragment but the first: the others have no transport header.
func sourcePort(reg uint32) []expr.Any {
	return []expr.Any{&expr.Payload{DestRegister: reg, Base: expr.PayloadBaseTransportHeader, Offset: 0, Len: 2}}
}

// in matches what was loaded from reg0 on against a set.
func in(set string) []expr.Any {
	return []expr.Any{&expr.Lookup{SourceRegister: reg0, SetName: set}}
}

// laterFragment matches a fragment offset other than 0.
func (f *family) laterFragment() []expr.Any {
	var load expr.Any = &expr.Payload{DestRegister: reg0, Base: expr.PayloadBaseNetworkHeader, Offset: 6, Len: 2}
	mask := []byte{0x1f, 0xff}
	if f == family6 {
		load = &expr.Exthdr{DestRegister: reg0, Type: unix.IPPROTO_FRAGMENT, Offset: 2, Len: 2, Op: expr.ExthdrOpIpv6}
		mask = []byte{0xff, 0xf8}
	}
	return []expr.Any{
		load,
		&expr.Bitwise{SourceRegister: reg0, DestRegister: reg0, Len: 2, Mask: mask, Xor: []byte{0, 0}},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: reg0, Data: []byte{0, 0}},
	}
}

func (f *family) icmpType(first, last byte) []expr.Any {
	return concat(l4proto(reg0), []expr.Any{
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg0, Data: []byte{f.icmp}},
		&expr.Payload{DestRegister: reg0, Base: expr.PayloadBaseTransportHeader, Offset: 0, Len: 1},
		&expr.Range{Op: expr.CmpOpEq, Register: reg0, FromData: []byte{first}, ToData: []byte{last}},
	})
}

func (f *family) fromPrefix(p netip.Prefix) []expr.Any {
	return concat(f.from(), f.within(expr.CmpOpEq, p))
}

// within compares the address loaded with those of a prefix.
func (f *family) within(op expr.CmpOp, p netip.Prefix) []expr.Any {
	return []expr.Any{
		&expr.Bitwise{SourceRegister: reg0, DestRegister: reg0, Len: f.size(), Mask: net.CIDRMask(p.Bits(), f.bits), Xor: make([]byte, f.size())},
		&expr.Cmp{Op: op, Register: reg0, Data: p.Masked().Addr().AsSlice()},
	}
}

var (
	multicast4 = netip.MustParsePrefix("224.0.0.0/4")
	multicast6 = netip.MustParsePrefix("ff00::/8")
	linkLocal6 = netip.MustParsePrefix("fe80::/10")
)

// toOthers matches packets that the host would forward: neither for itself nor broadcast or multicast, nor, of IPv6, for an
// address of the segment alone.
func (n *nft) toOthers(f *family) []expr.Any {
	switch {
	case f == family6:
		local := toOthersByFib6()
		if !n.fib {
			local = concat(f.to(), []expr.Any{&expr.Lookup{SourceRegister: reg0, SetName: f.sets.local, Invert: true}})
		}
		return concat(local, f.to(), f.within(expr.CmpOpNeq, multicast6), f.to(), f.within(expr.CmpOpNeq, linkLocal6))
	case n.fib:
		return toUnicastByFib()
	}
	return concat(f.to(), []expr.Any{&expr.Lookup{SourceRegister: reg0, SetName: f.sets.local, Invert: true}}, f.within(expr.CmpOpNeq, multicast4))
}

func toUnicastByFib() []expr.Any {
	return []expr.Any{
		&expr.Fib{Register: reg0, FlagDADDR: true, ResultADDRTYPE: true},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg0, Data: binaryutil.NativeEndian.PutUint32(unix.RTN_UNICAST)},
	}
}

// toOthersByFib6 says what isn't local: for IPv6 fib has another kind for what there is no route to, which the host would
// answer with an error.
func toOthersByFib6() []expr.Any {
	return []expr.Any{
		&expr.Fib{Register: reg0, FlagDADDR: true, ResultADDRTYPE: true},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: reg0, Data: binaryutil.NativeEndian.PutUint32(unix.RTN_LOCAL)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: reg0, Data: binaryutil.NativeEndian.PutUint32(unix.RTN_ANYCAST)},
	}
}

func drop() []expr.Any {
	return []expr.Any{&expr.Counter{}, &expr.Verdict{Kind: expr.VerdictDrop}}
}
