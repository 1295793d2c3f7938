package ipvsadm

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"text/tabwriter"

	"uvs/control/api"
)

// explain is the word explain: what would become of a packet, and why.
func (r *run) explain(args []string) error {
	req, asJSON, err := explainRequest(args)
	if err == nil {
		err = req.Check()
	}
	if err != nil {
		return r.complain("explain", "%v", err)
	}
	x, err := r.Backend.Explain(r.ctx, req)
	if err != nil || asJSON {
		return r.json(x, err)
	}
	return r.explanation(req, x)
}

// explainPort is a client's port where none is named: one that a system would take.
const explainPort = 40000

func explainRequest(args []string) (req *api.ExplainRequest, asJSON bool, err error) {
	req = new(api.ExplainRequest)
	for len(args) > 0 {
		option, value, joined := strings.Cut(args[0], "=")
		args = args[1:]
		if option == "--json" && !joined {
			asJSON = true
			continue
		}
		if !joined {
			if len(args) == 0 {
				return nil, false, fmt.Errorf("%s: a value is missing", option)
			}
			value, args = args[0], args[1:]
		}
		switch option {
		case "-t", "--tcp-service":
			req.Protocol = api.TCP
			req.Virtual, err = netip.ParseAddrPort(value)
		case "-u", "--udp-service":
			req.Protocol = api.UDP
			req.Virtual, err = netip.ParseAddrPort(value)
		case "--from":
			req.Client, err = clientAddr(value)
		case "--flags":
			req.Flags = strings.ToUpper(value)
		case "--length":
			req.Length, err = strconv.Atoi(value)
		case "--mark":
			var n uint64
			n, err = strconv.ParseUint(value, 0, 32)
			req.FWMark = uint32(n)
		case "--interface":
			req.Interface = value
		default:
			err = errors.New("no such option")
		}
		if err != nil {
			return nil, false, fmt.Errorf("%s %s: %w", option, value, err)
		}
	}
	switch {
	case !req.Virtual.IsValid():
		err = errors.New("where to? -t VIP:PORT or -u VIP:PORT")
	case !req.Client.IsValid():
		err = errors.New("from whom? --from CLIENT[:PORT]")
	}
	return req, asJSON, err
}

// clientAddr reads an address with or without a port.
func clientAddr(s string) (netip.AddrPort, error) {
	if a, err := netip.ParseAddr(strings.Trim(s, "[]")); err == nil {
		return netip.AddrPortFrom(a, explainPort), nil
	}
	return netip.ParseAddrPort(s)
}

// explanation prints an explanation, one step of the decision a line.
func (r *run) explanation(req *api.ExplainRequest, x *api.Explanation) error {
	line := func(what, format string, args ...any) {
		fmt.Fprintf(r.out, "%-12s %s\n", what, fmt.Sprintf(format, args...))
	}
	line("Packet", "%s %v to %v", req.Protocol, req.Client, req.Virtual)
	if x.FWMark != 0 {
		line("Mark", "%d", x.FWMark)
	}
	switch {
	case x.Service != nil && x.PersistenceSeconds != 0:
		line("Service", "%v, scheduler %s, persistent %d", x.Service, x.Scheduler, x.PersistenceSeconds)
	case x.Service != nil:
		line("Service", "%v, scheduler %s", x.Service, x.Scheduler)
	case x.Owned:
		line("Service", "none, though the address is the director's")
	default:
		line("Service", "none, nor is the address the director's")
	}
	switch c := x.Connection; x.Known {
	case "open":
		line("Connection", "known: %s to %v, %d s left", c.State, c.Server, c.ExpiresSeconds)
	case "replaced":
		line("Connection", "this packet ends the one to %v (%s) and opens another", c.Server, c.State)
	case "cut":
		line("Connection", "cut when its server %v was drained", c.Server)
	case "server-removed":
		line("Connection", "known, but its server %v was removed", c.Server)
	default:
		line("Connection", "none")
	}
	switch c := x.Template; {
	case c != nil && x.TemplateDead:
		line("Template", "to %v, which is gone or quiesced: made anew", c.Server)
	case c != nil:
		line("Template", "the client stays with %v, %d s left", c.Server, c.ExpiresSeconds)
	case x.PersistenceSeconds != 0 && x.Scheduled:
		line("Template", "none: the client is new")
	}
	if x.Scheduled {
		if err := r.explainedServers(x); err != nil {
			return err
		}
	}
	if h := x.NextHop; h != nil {
		switch {
		case h.Status != "ready":
			line("Next hop", "%s", h.Status)
		case h.Gateway != nil:
			line("Next hop", "router %v at %s by %s", h.Gateway, h.MAC, h.Interface)
		default:
			line("Next hop", "%s by %s", h.MAC, h.Interface)
		}
		if h.Status == "ready" {
			line("MTU", "%d, %s", x.MTU, choose(x.Fits, "it fits", "it is too long"))
		}
	}
	line("Verdict", "%s: %s", x.Verdict, x.Meaning)
	return nil
}

// explainedServers prints what the scheduler sees, in its order.
func (r *run) explainedServers(x *api.Explanation) error {
	fmt.Fprintf(r.out, "Scheduler    %s sees, the latest added first:\n", cmp.Or(x.Scheduler, "none"))
	t := tabwriter.NewWriter(r.out, 0, 0, 2, ' ', 0)
	fmt.Fprint(t, "\tReal server\tWeight\tActive\tInactive\tState\tLoad/Per\t\n")
	for i := range x.Servers {
		s := &x.Servers[i]
		load := "-"
		if s.Load != nil && *s.Per != 0 {
			load = fmt.Sprintf("%d/%d = %.4g", *s.Load, *s.Per, float64(*s.Load)/float64(*s.Per))
		}
		fmt.Fprintf(t, "  %s\t%v\t%d\t%d\t%d\t%s\t%s\t%s\n", choose(s.Picked, "->", "  "), s.ServerKey, s.Weight, s.Active, s.Inactive,
			s.State, load, choose(s.Picked, "picked", ""))
	}
	return t.Flush()
}
