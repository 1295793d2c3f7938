package packet

import "encoding/binary"

// Kinds of records in a report of listener discovery (RFC 3810 section 5.2.12). Nobody here asks for certain sources alone.
const (
	MLDListens = 2 // MODE_IS_EXCLUDE, of no source: answers a query
	MLDJoins   = 4 // CHANGE_TO_EXCLUDE_MODE
	MLDLeaves  = 3 // CHANGE_TO_INCLUDE_MODE, of no source
)

const (
	routerAlertLen = 8  // hop-by-hop header with the router alert option and padding
	mldRecordLen   = 20 // without sources
	mldQuery1Len   = 24 // of version 1's query, report and done
	mldQuery2Len   = 28
	mldHopLimit    = 1
)

// routerAlert is that header in front of ICMPv6 (RFC 2711), value 0: listener discovery; then PadN of nothing.
var routerAlert = [routerAlertLen]byte{ProtoICMPv6, 0, 5, 2, 0, 0, 1, 0}

// MLDQuery is what a query of listener discovery asks (RFC 2710 section 3, RFC 3810 section 5.1).
type MLDQuery struct {
	Version1 bool
	Group    Addr // zero: all groups
	// MaxDelay is the time in milliseconds within which answers shall be spread.
	MaxDelay int
}

// ParseMLDQuery reads a query into q. ok is false if p is none, or not a valid one (RFC 3810 section 5.1.14): from a
// link-local address, hop limit 1, with the router alert option.
func ParseMLDQuery(p *Packet, q *MLDQuery) (ok bool) {
	b := p.L4Bytes()
	if !p.IsNeighbourDiscovery() || p.TTL != mldHopLimit || p.FragmentAt != 0 || len(b) < mldQuery1Len || b[0] != ICMP6ListenerQuery {
		return false
	}
	if p.Src.hi>>54 != 0xfe80>>6 || !hasRouterAlert(p) || Fold(Sum(b, Pseudo6(p.Src, p.Dst, ProtoICMPv6, len(b)))) != 0xffff {
		return false
	}
	delay := int(binary.BigEndian.Uint16(b[4:6]))
	*q = MLDQuery{Version1: len(b) == mldQuery1Len, Group: AddrFrom16((*[16]byte)(b[8:24])), MaxDelay: delay}
	if !q.Version1 {
		if len(b) < mldQuery2Len {
			return false
		}
		if delay >= 1<<15 { // 1, three bits of exponent, twelve of mantissa (section 5.1.3)
			q.MaxDelay = (delay&0xfff | 0x1000) << (delay>>12&7 + 3)
		}
	}
	return q.Group.IsZero() || q.Group.hi>>56 == 0xff
}

// hasRouterAlert says that p has a hop-by-hop header with the router alert option of listener discovery.
func hasRouterAlert(p *Packet) bool {
	if p.IPv6().NextHeader() != extHopByHop {
		return false
	}
	b := p.Frame[p.L3+IPv6Len:]
	b = b[2 : 8+8*int(b[1])]
	for len(b) > 1 {
		switch {
		case b[0] == 0: // Pad1
			b = b[1:]
			continue
		case len(b) < 2+int(b[1]):
			return false
		case b[0] == 5:
			return b[1] == 2 && b[2] == 0 && b[3] == 0
		}
		b = b[2+int(b[1]):]
	}
	return false
}

// MLDReportLen is the length in bytes of the packet that PutMLDReport writes for n groups, IPv6 header included.
func MLDReportLen(n int) int { return IPv6Len + routerAlertLen + 8 + n*mldRecordLen }

// PutMLDReport writes to b, which must have MLDReportLen bytes, a packet that reports groups of listener discovery version
// 2, each with a record of that kind. Its source is unspecified (RFC 3590): a solicited-node group is of interest to
// snooping switches alone, no router forwards it.
func PutMLDReport(b []byte, kind uint8, groups []Addr) {
	b = b[:MLDReportLen(len(groups))]
	m := putMLDHead(b, MLDRouters)
	m[0] = ICMP6ListenerReport2
	binary.BigEndian.PutUint16(m[6:8], uint16(len(groups)))
	for i, g := range groups {
		r := m[8+i*mldRecordLen:]
		r[0] = kind
		putAddr(r[4:20], g)
	}
	SetWord(m[2:], ^Fold(Sum(m, Pseudo6(Addr{}, MLDRouters, ProtoICMPv6, len(m)))))
}

// MLDReport1Len is the length in bytes of the packet that PutMLDReport1 writes, IPv6 header included.
const MLDReport1Len = IPv6Len + routerAlertLen + mldQuery1Len

// PutMLDReport1 is PutMLDReport for one group in version 1 (RFC 2710), which answers a query of that version.
func PutMLDReport1(b []byte, group Addr) {
	m := putMLDHead(b[:MLDReport1Len], group)
	m[0] = ICMP6ListenerReport1
	putAddr(m[8:24], group)
	SetWord(m[2:], ^Fold(Sum(m, Pseudo6(Addr{}, group, ProtoICMPv6, len(m)))))
}

// putMLDHead writes the headers of a packet as long as b and returns the message behind them, all zero.
func putMLDHead(b []byte, dst Addr) []byte {
	clear(b)
	PutIPv6(b, len(b)-IPv6Len, Header6{NextHeader: extHopByHop, HopLimit: mldHopLimit, Dst: dst})
	copy(b[IPv6Len:], routerAlert[:])
	return b[IPv6Len+routerAlertLen:]
}
