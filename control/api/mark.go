package api

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// MarkRule gives a firewall mark to the packets from clients that meet all of its conditions; of the rules that a packet
// meets the first in order decides. What is absent takes every packet. Two rules never have the same conditions, since
// the second could never decide.
type MarkRule struct {
	// Mark is what a packet gets, never 0.
	Mark uint32 `json:"mark"`
	// Interface is the name of the interface that it came in by.
	Interface string `json:"interface,omitempty"`
	// Src and Dst are networks of its source and destination, of one family if both are there.
	Src netip.Prefix `json:"src,omitzero"`
	Dst netip.Prefix `json:"dst,omitzero"`
	// Protocol is TCP, UDP or SCTP.
	Protocol string `json:"protocol,omitempty"`
	// SrcPorts and DstPorts are its ports; without a protocol they are those of TCP, UDP and SCTP.
	SrcPorts PortRange `json:"srcPorts,omitzero"`
	DstPorts PortRange `json:"dstPorts,omitzero"`
}

// String gives the rule as the arguments of uvsadm mark add.
func (r MarkRule) String() string {
	words := []string{strconv.FormatUint(uint64(r.Mark), 10)}
	add := func(option, value string) {
		if value != "" {
			words = append(words, option, value)
		}
	}
	add("--interface", r.Interface)
	add("--src", prefixText(r.Src))
	add("--dst", prefixText(r.Dst))
	add("--proto", r.Protocol)
	add("--sport", r.SrcPorts.String())
	add("--dport", r.DstPorts.String())
	return strings.Join(words, " ")
}

func prefixText(p netip.Prefix) string {
	switch {
	case !p.IsValid():
		return ""
	case p.IsSingleIP():
		return p.Addr().String()
	}
	return p.String()
}

// Check reports whether the rule is well formed. Its error has the code BadRequest.
func (r *MarkRule) Check() error {
	if r.Mark == 0 {
		return Errorf(BadRequest, "mark rule: the mark is a number from 1 on")
	}
	for _, p := range []netip.Prefix{r.Src, r.Dst} {
		if p.IsValid() && p.Addr().Is4In6() {
			return Errorf(BadRequest, "mark rule: network %v is IPv4 written as IPv6", p)
		}
	}
	if r.Src.IsValid() && r.Dst.IsValid() && r.Src.Addr().Is4() != r.Dst.Addr().Is4() {
		return Errorf(BadRequest, "mark rule: source %v and destination %v are of different families", r.Src, r.Dst)
	}
	switch r.Protocol {
	case "", TCP, UDP, SCTP:
	default:
		return Errorf(BadRequest, "mark rule: the protocol is %q, %q or %q, not %q", TCP, UDP, SCTP, r.Protocol)
	}
	for _, p := range []PortRange{r.SrcPorts, r.DstPorts} {
		if p.First > p.Last {
			return Errorf(BadRequest, "mark rule: the ports %d-%d end before they begin", p.First, p.Last)
		}
	}
	return nil
}

// PortRange is the ports from First to Last, both included, in host order: "80" or "1024-65535" on the wire. The zero
// PortRange is every port, and absent.
type PortRange struct{ First, Last uint16 }

// ParsePortRange reads "80" or "1024-65535"; "0-65535" is the zero PortRange.
func ParsePortRange(s string) (PortRange, error) {
	first, last, isRange := strings.Cut(s, "-")
	if !isRange {
		last = first
	}
	a, errA := strconv.ParseUint(first, 10, 16)
	b, errB := strconv.ParseUint(last, 10, 16)
	if errA != nil || errB != nil || a > b || b == 0 {
		return PortRange{}, fmt.Errorf("ports %q: neither a port from 1 to 65535 nor a range such as 1024-65535", s)
	}
	if a == 0 && b == 65535 {
		return PortRange{}, nil
	}
	return PortRange{uint16(a), uint16(b)}, nil
}

// String gives the wire form; every port is empty.
func (r PortRange) String() string {
	switch {
	case r == PortRange{}:
		return ""
	case r.First == r.Last:
		return strconv.Itoa(int(r.First))
	}
	return fmt.Sprintf("%d-%d", r.First, r.Last)
}

// MarshalText implements encoding.TextMarshaler.
func (r PortRange) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (r *PortRange) UnmarshalText(text []byte) (err error) {
	if len(text) == 0 {
		*r = PortRange{}
		return nil
	}
	*r, err = ParsePortRange(string(text))
	return err
}

// MarksReply answers GET /v1/marks. Rules are in the order in which they decide; it is never null.
type MarksReply struct {
	Rules []MarkRule `json:"rules"`
}
