package conformance

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"uvs/conntrack"
	"uvs/control"
	"uvs/control/api"
	"uvs/control/ipvsadm"
	"uvs/dataplane"
	"uvs/dataplane/link"
	"uvs/dataplane/nexthop"
	"uvs/packet"
	"uvs/service"
)

const second = int64(time.Second)

// Director is uvs's packet path and control on in-memory links, in virtual time, in the place of the recorded kernel.
type Director struct {
	plane   *dataplane.Plane
	control *control.Director
	conns   *conntrack.Table
	hops    *nexthop.Static
	links   [2]*link.Mem // the worker's
	slow    [2]*link.Mem // the slow path's
	stack   [2]*link.Mem // the worker's and the slow path's way into the host
	mtu     [2]int
	now     int64
	tick    int64 // when control looks at the counters next

	verdicts []uint64 // as Verdict saw them last
}

// NewDirector makes a director in the recorded topology.
func NewDirector() (*Director, error) {
	d := &Director{hops: new(nexthop.Static), now: 1_000_000 * second, mtu: [2]int{1500, 1500}, tick: 1_000_002 * second}
	d.verdicts = make([]uint64, len(dataplane.Stats{}.Verdicts))
	servers := new(service.ServerIndex)
	conns, err := conntrack.New(conntrack.Config{Servers: servers})
	if err != nil {
		return nil, err
	}
	d.conns = conns
	macs := [2]packet.MAC{directorClientSide, directorServerSide}
	for i, m := range macs {
		d.links[i], d.slow[i] = link.NewMem(link.MemConfig{MAC: m}), link.NewMem(link.MemConfig{MAC: m})
	}
	for i := range d.stack {
		d.stack[i] = link.NewMem(link.MemConfig{MAC: stackMAC})
	}
	d.plane, err = dataplane.New(dataplane.Config{
		Ports: []dataplane.Port{
			{Name: "cli", MAC: directorClientSide},
			{Name: "rs", MAC: directorServerSide, Gateways: []netip.Prefix{netip.MustParsePrefix("10.1.0.1/24"), netip.MustParsePrefix("2001:db8:1::1/64")}},
		},
		OpenRx: func(_, port int) (link.Link, error) { return d.links[port], nil },
		OpenTx: func(port int) (link.Link, error) { return d.slow[port], nil },
		Stack: &dataplane.Stack{
			OpenRx: func(int) (link.Link, error) { return d.stack[0], nil },
			OpenTx: func() (link.Link, error) { return d.stack[1], nil },
			MAC:    stackMAC,
		},
		Conns: conns, NextHops: d.hops, AnnounceInterval: -1, AnswersPerSecond: 1 << 20,
		Inner: dataplane.ForwardInnerTraffic, // the recorded host had ip_forward=1
	})
	if err != nil {
		return nil, err
	}
	d.control = control.New(control.Config{
		Servers: servers, Connections: conns, Counters: d.plane, Publish: d.plane.Publish, Now: func() int64 { return d.now },
		Explain: d.plane.Explain, Interfaces: []string{"cli", "rs"},
		InterfaceMTU: func(name string) int { return map[string]int{"vec0": d.mtu[0], "vec1": d.mtu[1], "lo": 65536}[name] },
		IsLocal: func(a netip.Addr) bool {
			return a.IsLoopback() || slices.Contains([]string{"10.9.0.1", "10.1.0.1", "2001:db8:9::1", "2001:db8:1::1"}, a.String())
		},
		Version: api.Version{UVS: "test"},
	})
	d.routes()
	return d, nil
}

// routes sets the next hops of the recorded topology.
func (d *Director) routes() {
	inside, inside6 := packet.AddrFrom(addr("10.1.0.1")), packet.AddrFrom(addr("2001:db8:1::1"))
	d.route("0.0.0.0/0", nexthop.Hop{Iface: 0, Dst: clientGateway, MTU: d.mtu[0], Source: packet.AddrFrom(addr("10.9.0.1"))})
	d.route("10.2.0.0/16", nexthop.Hop{Iface: 1, Dst: serverRouter, MTU: d.mtu[1], Source: inside})
	for n := range byte(20) {
		rip := netip.AddrFrom4([4]byte{10, 1, 0, 11 + n})
		d.route(netip.PrefixFrom(rip, 32).String(), nexthop.Hop{Iface: 1, Dst: serverMAC(11 + n), MTU: d.mtu[1], Source: inside})
		d.route(fmt.Sprintf("2001:db8:1::%d/128", 11+n), nexthop.Hop{Iface: 1, Dst: serverMAC(11 + n), MTU: d.mtu[1], Source: inside6})
	}
	d.route("::/0", nexthop.Hop{Iface: 0, Dst: clientGateway, MTU: d.mtu[0], Source: packet.AddrFrom(addr("2001:db8:9::1"))})
}

func (d *Director) route(prefix string, hop nexthop.Hop) {
	d.hops.SetPrefix(netip.MustParsePrefix(prefix), &hop, nexthop.Ready)
}

// Close gives everything back.
func (d *Director) Close() error { return d.plane.Close() }

// Inject runs a frame to its end and returns what came out. Announcements are left out: the kernel makes none.
func (d *Director) Inject(wire int, frame []byte) []Sent {
	d.drain()
	d.links[wire].Inject(frame)
	return d.drain()
}

// Explain says what would become of a client's frame if it came now. ok is false for what is no whole TCP or UDP packet.
func (d *Director) Explain(frame []byte) (x dataplane.Explanation, ok bool) {
	var p packet.Packet
	if packet.Decode(frame, &p) != packet.NoFault || p.Fragment || p.Proto != packet.ProtoTCP && p.Proto != packet.ProtoUDP {
		return x, false
	}
	return d.plane.Explain(&dataplane.Question{
		Flow: p.Flow, Event: p.Event(), TTL: p.TTL, Len: p.IPLen(), Uncut: !p.MayFragment(), Payload: p.Frame[p.Payload:],
	}, d.now), true
}

// Verdict says how the last frame ended whose Inject lay between two calls; not what the host answered it, if it got it.
func (d *Director) Verdict() (last dataplane.Verdict) {
	now := d.plane.Stats().Verdicts
	for v, n := range now {
		if n != d.verdicts[v] && last != dataplane.ForwardedLocal {
			last = dataplane.Verdict(v)
		}
	}
	d.verdicts = now[:]
	return last
}

func (d *Director) drain() (out []Sent) {
	for busy := true; busy; {
		for d.plane.Step(d.now) {
		}
		busy = d.answerAsHost()
	}
	for _, side := range [][2]*link.Mem{d.links, d.slow} {
		for wire, l := range side {
			for _, f := range l.Sent() {
				if f = f[packet.VnetLen:]; !Neighbourhood(f) {
					out = append(out, Sent{wire, f})
				}
			}
		}
	}
	return out
}

// Neighbourhood says that a frame is ARP, neighbour discovery or a report of multicast listeners.
func Neighbourhood(frame []byte) bool {
	var p packet.Packet
	switch (*packet.Eth)(frame).Type() {
	case packet.EtherARP:
		return true
	case packet.EtherIPv6:
		if packet.Decode(frame, &p) == packet.NoFault && p.IsICMP() {
			t := p.ICMP().Type()
			return t >= packet.ICMP6RouterSolicit && t < packet.ICMP6Redirect || t == packet.ICMP6ListenerReport2
		}
	}
	return false
}

// answerAsHost lets the host's own stack answer what it was given, and says whether it was given anything.
func (d *Director) answerAsHost() (busy bool) {
	for _, l := range d.stack {
		for _, f := range l.Sent() {
			if answer := d.hostAnswer(f[packet.VnetLen:]); answer != nil {
				d.stack[0].Inject(answer)
			}
			busy = true
		}
	}
	return busy
}

// Pass lets time pass, a tenth of a second at a time, so that timers are late by no more.
func (d *Director) Pass(span time.Duration) {
	for span > 0 {
		step := min(span, 100*time.Millisecond)
		d.now += int64(step)
		span -= step
		d.drain()
		for ; d.now >= d.tick; d.tick += 2 * second {
			d.control.Tick(time.Unix(0, d.tick))
		}
	}
}

// IPVSAdm runs an ipvsadm command line.
func (d *Director) IPVSAdm(line, stdin string) (stdout, stderr string, status int) {
	var out, errs bytes.Buffer
	p := ipvsadm.Program{Name: "ipvsadm", Backend: d.control, Stdin: strings.NewReader(stdin), Stdout: &out, Stderr: &errs}
	status = p.Run(context.Background(), strings.Fields(line))
	return out.String(), errs.String(), status
}

// Counts are the servers of each service in the kernel's order: address, method, weight, active and inactive connections.
func (d *Director) Counts() (map[string][][]any, error) {
	services, err := d.control.Services(context.Background(), nil)
	if err != nil {
		return nil, err
	}
	counts := make(map[string][][]any)
	for _, s := range services {
		name := fmt.Sprintf("%s %v", strings.ToUpper(s.Protocol), netip.AddrPortFrom(s.Address, s.Port))
		if s.FWMark != 0 {
			name = fmt.Sprintf("FWM %d", s.FWMark)
		}
		list := [][]any{}
		for _, r := range s.Servers {
			list = append(list, []any{
				netip.AddrPortFrom(r.Address, r.Port).String(), methodName(r.Config.Method), float64(r.Config.Weight),
				float64(r.Active), float64(r.Inactive),
			})
		}
		counts[name] = list
	}
	return counts, nil
}

func methodName(m string) string {
	return map[string]string{"masq": "Masq", "route": "Route", "tunnel": "Tunnel", "local": "Local"}[m]
}

// Conns are all entries of the connection table, as /proc/net/ip_vs_conn has them: protocol, client, virtual address, server,
// state and whole seconds to live.
func (d *Director) Conns() ([][]any, error) {
	var list [][]any
	err := d.control.Connections(context.Background(), api.ConnectionFilter{}, func(c *api.Connection) error {
		list = append(list, []any{
			strings.ToUpper(c.Protocol), c.Client.String(), c.Virtual.String(), c.Server.String(), c.State, float64(c.ExpiresSeconds),
		})
		return nil
	})
	return list, err
}

// Sysctl sets one of the settings below net.ipv4.
func (d *Director) Sysctl(name string, v int) error {
	_, err := d.control.Set(context.Background(), []api.Setting{{Name: "net.ipv4." + name, Value: strconv.Itoa(v)}})
	return err
}

// Shell does what a recorded shell command did to the director's surroundings.
func (d *Director) Shell(line string) error {
	if strings.Contains(line, "ip -6 ") {
		return nil // gives the recorded host the IPv6 addresses and routes that routes has
	}
	for command := range strings.SplitSeq(line, ";") {
		if err := d.shell(strings.Fields(command)); err != nil {
			return fmt.Errorf("%q: %w", command, err)
		}
	}
	return nil
}

func (d *Director) shell(f []string) error {
	var n int
	switch {
	case len(f) == 2 && f[0] == "set":
		return nil
	case len(f) == 11 && (f[0] == "iptables-legacy" || f[0] == "ip6tables-legacy") && f[9] == "--set-mark":
		return d.mark(f[10], f[6])
	case len(f) == 8 && f[0] == "ip" && f[1] == "route" && f[3] == "local":
		return nil // makes the recorded host take the packets; uvs takes what comes to its MAC address
	case len(f) == 6 && f[0] == "ip" && f[1] == "link" && f[4] == "mtu":
		if _, err := fmt.Sscan(f[5], &n); err != nil {
			return err
		}
		d.mtu[map[string]int{"vec0": 0, "vec1": 1}[f[3]]] = n
		d.routes()
		return nil
	case len(f) == 4 && f[0] == "echo" && f[2] == ">":
		name, ok := strings.CutPrefix(f[3], "/proc/sys/net/ipv4/")
		if _, err := fmt.Sscan(f[1], &n); err != nil || !ok {
			return fmt.Errorf("not a setting")
		}
		return d.Sysctl(strings.ReplaceAll(name, "/", "."), n)
	case len(f) > 2 && f[0] == "ip" && f[1] == "route":
		return nil // only looks
	}
	return fmt.Errorf("nothing stands for this command")
}

// mark gives packets to a network a firewall mark.
func (d *Director) mark(mark, dst string) error {
	n, err := strconv.ParseUint(mark, 10, 32)
	if err != nil {
		return err
	}
	network, err := netip.ParsePrefix(dst)
	if err != nil {
		a, err := netip.ParseAddr(dst)
		if err != nil {
			return err
		}
		network = netip.PrefixFrom(a, a.BitLen())
	}
	rule := &api.MarkRule{Mark: uint32(n), Dst: network}
	reply, err := d.control.Change(context.Background(), &api.ChangeRequest{
		Ops: []api.Op{{Kind: api.AddMarkRule, MarkRule: rule}}, OnError: api.Atomic,
	})
	if err != nil {
		return err
	}
	return reply.Err()
}
