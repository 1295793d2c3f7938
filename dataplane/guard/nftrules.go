package guard

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"

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

// Registers of nftables: four bytes each, so that fields loaded side by side are a concatenation.
const (
	reg0 = unix.NFT_REG32_00
	reg1 = unix.NFT_REG32_01
	reg2 = unix.NFT_REG32_02
)

// rules are those of a chain. All are about packets that come in from real servers for somebody else than the host: the
// servers can talk to the host as ever.
func (n *nft) rules(c chain) []rule {
	suffix := ""
	if !n.fib {
		suffix = ", by the list of local addresses"
	}
	list := []rule{
		{"answers of NAT real servers: uvs has them", concat(source(), l4proto(reg1), sourcePort(reg2), in(setAnswers))},
		{"likewise from any port", concat(source(), l4proto(reg1), in(setAnyPort))},
		{"later fragments of such answers", concat(laterFragment(), source(), l4proto(reg1), in(setFragments))},
		{"their ICMP errors 3 to 5", concat(source(), in(setServers), icmpType(3, 5))},
		{"their ICMP errors 11 and 12", concat(source(), in(setServers), icmpType(11, 12))},
	}
	for _, p := range c.inner {
		list = append(list, rule{fmt.Sprintf("whatever comes from %v: uvs is its gateway", p), from(p)})
	}
	for i := range list {
		list[i].comment += suffix
		list[i].exprs = concat(isIPv4(), list[i].exprs, n.toOthers(), drop())
	}
	return list
}

func concat(parts ...[]expr.Any) (all []expr.Any) {
	for _, p := range parts {
		all = append(all, p...)
	}
	return all
}

func isIPv4() []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyPROTOCOL, Register: reg0},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg0, Data: binary.BigEndian.AppendUint16(nil, packet.EtherIPv4)},
	}
}

func source() []expr.Any {
	return []expr.Any{&expr.Payload{DestRegister: reg0, Base: expr.PayloadBaseNetworkHeader, Offset: 12, Len: 4}}
}

func destination() []expr.Any {
	return []expr.Any{&expr.Payload{DestRegister: reg0, Base: expr.PayloadBaseNetworkHeader, Offset: 16, Len: 4}}
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
func laterFragment() []expr.Any {
	return []expr.Any{
		&expr.Payload{DestRegister: reg0, Base: expr.PayloadBaseNetworkHeader, Offset: 6, Len: 2},
		&expr.Bitwise{SourceRegister: reg0, DestRegister: reg0, Len: 2, Mask: []byte{0x1f, 0xff}, Xor: []byte{0, 0}},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: reg0, Data: []byte{0, 0}},
	}
}

func icmpType(first, last byte) []expr.Any {
	return concat(l4proto(reg0), []expr.Any{
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg0, Data: []byte{packet.ProtoICMP}},
		&expr.Payload{DestRegister: reg0, Base: expr.PayloadBaseTransportHeader, Offset: 0, Len: 1},
		&expr.Range{Op: expr.CmpOpEq, Register: reg0, FromData: []byte{first}, ToData: []byte{last}},
	})
}

func from(p netip.Prefix) []expr.Any {
	mask := net.CIDRMask(p.Bits(), 32)
	return concat(source(), []expr.Any{
		&expr.Bitwise{SourceRegister: reg0, DestRegister: reg0, Len: 4, Mask: mask, Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg0, Data: p.Masked().Addr().AsSlice()},
	})
}

// toOthers matches packets that the host would forward: neither for itself nor broadcast or multicast.
func (n *nft) toOthers() []expr.Any {
	if n.fib {
		return toUnicastByFib()
	}
	return concat(destination(), []expr.Any{
		&expr.Lookup{SourceRegister: reg0, SetName: setLocal, Invert: true},
		&expr.Bitwise{SourceRegister: reg0, DestRegister: reg0, Len: 4, Mask: []byte{0xf0, 0, 0, 0}, Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: reg0, Data: []byte{0xe0, 0, 0, 0}},
	})
}

func toUnicastByFib() []expr.Any {
	return []expr.Any{
		&expr.Fib{Register: reg0, FlagDADDR: true, ResultADDRTYPE: true},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg0, Data: binaryutil.NativeEndian.PutUint32(unix.RTN_UNICAST)},
	}
}

func drop() []expr.Any {
	return []expr.Any{&expr.Counter{}, &expr.Verdict{Kind: expr.VerdictDrop}}
}
