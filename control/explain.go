package control

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"uvs/conntrack"
	"uvs/control/api"
	"uvs/dataplane"
	"uvs/dataplane/nexthop"
	"uvs/packet"
	"uvs/sched"
	"uvs/service"
)

// Explain implements api.Backend.
func (d *Director) Explain(ctx context.Context, r *api.ExplainRequest) (*api.Explanation, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if d.cfg.Explain == nil {
		return nil, refusal(api.Unsupported, "explain: there is no packet path to ask")
	}
	q, err := d.question(r)
	if err != nil {
		return nil, tried(err, "explain")
	}
	x := d.cfg.Explain(q, d.cfg.Now())
	return d.explanation(q, &x), nil
}

// question is a request, checked, in the terms of the packet path.
func (d *Director) question(r *api.ExplainRequest) (*dataplane.Question, error) {
	q := &dataplane.Question{
		Flow: packet.Flow{
			Src: packet.AddrFrom(r.Client.Addr()), SrcPort: r.Client.Port(),
			Dst: packet.AddrFrom(r.Virtual.Addr()), DstPort: r.Virtual.Port(), Proto: uint8(protocols[r.Protocol]),
		},
		Mark: r.FWMark, TTL: 64, Len: r.Length, Payload: r.Payload,
	}
	if r.Interface != "" {
		if q.Port = slices.Index(d.cfg.Interfaces, r.Interface); q.Port < 0 {
			return nil, refusal(api.Invalid, "uvsd is not attached to interface %q but to %s", r.Interface, strings.Join(d.cfg.Interfaces, ", "))
		}
	}
	headers := packet.IPv4Len
	if !q.Flow.Dst.Is4() {
		headers = packet.IPv6Len
	}
	headers += packet.UDPLen
	switch r.Protocol {
	case api.TCP:
		headers += packet.TCPLen - packet.UDPLen
		q.Event = tcpFlags(r.Flags)
	case api.SCTP:
		headers += packet.SCTPLen + initChunkLen - packet.UDPLen
		q.Event = packet.SCTPInit
	}
	if q.Len == 0 {
		q.Len = headers
	}
	q.Uncut = r.Protocol == api.TCP || !q.Flow.Dst.Is4() // hosts set DF on TCP
	return q, nil
}

// initChunkLen is the length in bytes of an INIT chunk without parameters (RFC 9260 section 3.3.2).
const initChunkLen = 20

// tcpFlags reads flags by their letters; none is a SYN.
func tcpFlags(letters string) (flags uint8) {
	if letters == "" {
		return packet.TCPSyn
	}
	for _, c := range letters {
		flags |= 1 << strings.IndexRune("FSRPAUEC", c)
	}
	return flags
}

func (d *Director) explanation(q *dataplane.Question, x *dataplane.Explanation) *api.Explanation {
	out := &api.Explanation{FWMark: x.Mark, Owned: x.Owned, Known: "none", Scheduled: x.Scheduled, Verdict: x.Verdict.String()}
	now := d.cfg.Now()
	switch x.Known {
	case conntrack.Hit:
		out.Known = "open"
	case conntrack.NoServer:
		out.Known = "server-removed"
	case conntrack.Cut:
		out.Known = "cut"
	case conntrack.MissReused, conntrack.MissNoServer:
		out.Known = "replaced"
	}
	if out.Known != "none" {
		out.Connection = connection(&x.Conn, now)
	}
	if x.Templated == conntrack.Hit || x.Templated == conntrack.MissNoServer {
		out.Template, out.TemplateDead = connection(&x.Template, now), x.Templated != conntrack.Hit
	}
	if vs := x.Service; vs != nil {
		k := apiKey(vs.Key)
		out.Service = &k
		d.mu.RLock()
		if v := d.services[vs.Key]; v != nil {
			c := v.config.api()
			out.Scheduler, out.PersistenceSeconds = c.Scheduler, c.PersistenceSeconds
		}
		d.mu.RUnlock()
		for _, rs := range vs.Servers {
			out.Servers = append(out.Servers, explainedServer(out.Scheduler, rs, rs == x.Picked))
		}
	}
	if !x.ServerAddr.IsZero() {
		to := netip.AddrPortFrom(x.ServerAddr.Netip(), x.ServerPort)
		out.Server, out.Method = &to, methodNames[x.Method]
		out.NextHop = d.explainedHop(x)
		out.MTU, out.Fits = x.MTU, x.Hop != nil && q.Len <= x.MTU
	}
	out.Meaning = meaning(x, out)
	return out
}

func explainedServer(scheduler string, rs *service.RealServer, picked bool) api.ExplainedServer {
	s := api.ExplainedServer{
		ServerKey: api.ServerKey{Address: rs.Addr.Addr(), Port: rs.Addr.Port()}, Method: methodNames[rs.Method()],
		Weight: int(rs.Weight()), Active: count(rs.Active()), Inactive: count(rs.Inactive()), State: "eligible", Picked: picked,
	}
	switch {
	case rs.Weight() == 0:
		s.State = "quiesced"
	case rs.Overloaded():
		s.State = "overloaded"
	}
	if load, per, ok := sched.Operand(scheduler, rs); ok {
		s.Load, s.Per = &load, &per
	}
	return s
}

func (d *Director) explainedHop(x *dataplane.Explanation) *api.ExplainedHop {
	h := &api.ExplainedHop{Status: x.Way.String()}
	if x.Hop == nil {
		return h
	}
	h.MAC = x.Hop.Dst.String()
	if i := x.Hop.Iface; i < len(d.cfg.Interfaces) {
		h.Interface = d.cfg.Interfaces[i]
	}
	if g := x.Hop.Gateway; !g.IsZero() && g != x.ServerAddr {
		a := g.Netip()
		h.Gateway = &a
	}
	return h
}

// meaning is the verdict in words, more exactly where it is known what it is about.
func meaning(x *dataplane.Explanation, out *api.Explanation) string {
	switch v := x.Verdict; {
	case v == dataplane.AnsweredICMP && out.Server != nil && x.Hop != nil:
		return fmt.Sprintf("its sender is told that no more than %d bytes go through", x.MTU)
	case v == dataplane.AnsweredICMP && x.Service != nil:
		return "refused with ICMP port unreachable: the service has no server for it"
	case v == dataplane.AnsweredICMP:
		return "refused with ICMP port unreachable: there is no such service"
	case v == dataplane.DropHeldTimeout:
		return "held until the server's next hop is resolved"
	case v.Dropped() && x.Way != nexthop.Ready && out.Server != nil:
		return fmt.Sprintf("dropped, its sender told: the way to %v is %v", out.Server.Addr(), x.Way)
	case out.Server != nil && !v.Dropped() && !v.Answered():
		return fmt.Sprintf("sent to %v by %s", out.Server, map[string]string{
			api.Route: "direct routing", api.Masq: "NAT", api.Tunnel: "tunnel", api.Local: "the director's own stack",
		}[out.Method])
	default:
		return v.Meaning()
	}
}
