// Package doctor finds the classic mistakes around a director by asking the network: stations that answer for its addresses,
// real servers without the virtual address, NAT servers whose answers go past the director, tunnels whose path is too narrow,
// a host that interferes. It opens no connection that a server's program would see, and leaves no entry or count behind.
package doctor

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"uvs/control/api"
	"uvs/dataplane"
	"uvs/dataplane/guard"
	"uvs/dataplane/link"
	"uvs/dataplane/nexthop"
	"uvs/packet"
	"uvs/service"
)

// Plane is what asks: *dataplane.Plane.
type Plane interface {
	Table() *service.Table
	Probe(ctx context.Context, pr *dataplane.Probe) dataplane.ProbeResult
	Alive(ctx context.Context, port int, from, neighbour packet.Addr) bool
	Claims(ctx context.Context) (found []dataplane.Claim, asked int)
	PathMTU(to packet.Addr, mtu int) int
	LinkStats(port int) link.Stats
	Stats() dataplane.Stats
}

// NextHops knows the routes: *nexthop.Resolver.
type NextHops interface {
	Lookup(dst packet.Addr) (*nexthop.Hop, nexthop.Status)
	OnLink(dst packet.Addr) (port int, ok bool)
	Resolve(dst packet.Addr)
}

// Port is one of the packet path's.
type Port struct {
	Name     string
	Gateways []netip.Prefix
}

// Config is what a Doctor asks by.
type Config struct {
	Plane    Plane
	NextHops NextHops
	Ports    []Port
	// Sources are addresses of the director's that servers may be asked from, of either family: those for probes first.
	Sources []netip.Addr
	// Host looks at the director's own host. nil: nobody can.
	Host func(ctx context.Context) []guard.Finding
	// Neighbour returns the address, IPv4 or not, of a station that the host knows on a port, if it does. nil: it knows none.
	Neighbour func(port int, mac packet.MAC, is4 bool) (netip.Addr, bool)
}

const (
	// timeLimit is how long it may take: without any answer half of it, with thousands of silent servers not all are asked.
	timeLimit = 10 * time.Second
	// atOnce is how many servers are asked at the same time.
	atOnce = 256
)

// order is that of the kinds of findings: what harms most first.
var order = []string{
	api.FindingHost, api.FindingARP, api.FindingSecondDirector, api.FindingNoVIP, api.FindingNoTunnel, api.FindingNATBypass,
	api.FindingNotListening, api.FindingSilent, api.FindingUnreachable, api.FindingTunnelMTU, api.FindingOffload, api.FindingDrops,
}

// Run asks everything, which takes some seconds. The error is that of ctx.
func Run(ctx context.Context, cfg Config) (*api.Diagnosis, error) {
	began := time.Now()
	limited, cancel := context.WithTimeout(ctx, timeLimit)
	defer cancel()
	d := &doctor{Config: cfg, ctx: limited, table: cfg.Plane.Table(), slots: make(chan struct{}, atOnce), notes: make(map[string]bool)}
	before := d.linkStats()
	var all sync.WaitGroup
	for _, check := range []func(){d.addresses, d.servers, d.tunnels, d.host} {
		all.Go(check)
	}
	all.Wait()
	d.drops(before)
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if limited.Err() != nil {
		d.note("%d seconds were not enough to ask everybody", int(timeLimit.Seconds()))
	}
	slices.SortStableFunc(d.Findings, func(a, b api.Finding) int {
		return cmp.Or(
			cmp.Compare(slices.Index(order, a.Kind), slices.Index(order, b.Kind)),
			cmp.Compare(a.What, b.What),
		)
	})
	slices.Sort(d.Unchecked)
	d.Milliseconds = time.Since(began).Milliseconds()
	return &d.Diagnosis, nil
}

// doctor is a diagnosis being made.
type doctor struct {
	Config
	ctx   context.Context
	table *service.Table
	slots chan struct{} // bounds the servers that are asked at once

	mu sync.Mutex // guards the rest
	api.Diagnosis
	notes map[string]bool // in Unchecked
}

// found adds a finding.
func (d *doctor) found(f api.Finding) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.Findings = append(d.Findings, f)
}

// note adds what could not be checked, once.
func (d *doctor) note(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.notes[text] {
		d.notes[text] = true
		d.Unchecked = append(d.Unchecked, text)
	}
}

// each runs ask for each of n things, so many at once as may be, and returns when all are done or time is up.
func (d *doctor) each(n int, ask func(i int)) {
	var all sync.WaitGroup
	defer all.Wait()
	for i := range n {
		select {
		case d.slots <- struct{}{}:
		case <-d.ctx.Done():
			return
		}
		all.Go(func() {
			defer func() { <-d.slots }()
			ask(i)
		})
	}
}

// probe sends a probe and counts it.
func (d *doctor) probe(pr dataplane.Probe) dataplane.ProbeResult {
	d.mu.Lock()
	d.Probes++
	d.mu.Unlock()
	return d.Plane.Probe(d.ctx, &pr)
}

// portName is the name of a port's interface.
func (d *doctor) portName(port int) string {
	if port >= 0 && port < len(d.Ports) {
		return d.Ports[port].Name
	}
	return "?"
}
