// Package guard keeps the host's own IP stack off the packets that are uvs's business, and finds what on the host would
// break its service. AF_PACKET hands uvs a copy of each frame: without a guard the kernel sees it as well and may answer
// with a reset or an ICMP error, or forward a duplicate.
//
// Where the virtual addresses have a MAC address of their own (Virtual), the kernel ignores their frames and there is
// next to nothing to do. Where they share the interface's (InterfaceMAC), a Guard installs
//
//   - a blackhole route for each address that uvs owns, in the table local, which policy rules don't get around;
//   - an nftables rule at the interface's ingress for what a route cannot tell from the host's own traffic: the answers of
//     NAT's real servers. The frames' receivers over AF_PACKET come before that hook as long as they take ETH_P_ALL.
//
// Where uvs sends health checks in the host's name, a rule there keeps the answers, which come from virtual addresses, from the
// host's stack in either mode.
//
// For real servers that are the host itself (Local) it installs, whatever the mode, policy rules and a route that lead their
// answers to uvs, which the packets came from.
//
// Everything it installs carries its mark: routes the protocol RouteProtocol and the instance's number as metric or table,
// rules that protocol and the number as table, nftables' tables the name "uvs-" and the instance's. A lock that ends with
// the process tells a living instance's from a dead one's.
package guard

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"uvs/packet"
)

// RouteProtocol is the rtnetlink protocol number of everything that uvs installs in the host's route tables: how
// leftovers of a crashed run are told from the operator's routes.
const RouteProtocol = 137

// Interface is an attached interface.
type Interface struct {
	Name string
	// Mode is Virtual or InterfaceMAC; ChooseMode decides for Auto.
	Mode Mode
	// MACs are the addresses that uvs has on the interface in mode Virtual. A bridge is told of them, lest it flood
	// frames to them to all its ports.
	MACs []packet.MAC
}

// Config is what a Guard is made of.
type Config struct {
	Interfaces []Interface
	// Instance names this uvsd among those of the host; empty means by its interfaces. If another lives under that
	// name a number is added.
	Instance string
	Log      *zap.Logger
}

// Server is a NAT real server as it appears in its answers' source.
type Server struct {
	// Addr is its address and port; port 0 stands for all.
	Addr  netip.AddrPort
	Proto uint8 // packet.ProtoTCP and so on
}

// Gateway is an address that uvs owns as gateway of a segment of real servers.
type Gateway struct {
	Prefix netip.Prefix // the address with the segment's prefix length
	Iface  string
	// All says that uvs forwards everything that the servers send through the gateway, not only answers: the host must
	// then forward nothing of it.
	All bool
}

// Desired is what a Guard is to keep the host's stack off.
type Desired struct {
	VIPs       []netip.Addr
	NATServers []Server
	Gateways   []Gateway
	// FromVIPs says that uvs takes what comes from VIPs to the host's own addresses: answers to health checks that were
	// sent from there. Nobody else has reason to send such packets.
	FromVIPs bool
}

// Guard holds the host's stack back. Its methods may be called from any goroutine.
type Guard struct {
	cfg  Config
	log  *zap.Logger
	name string // of the instance
	id   int    // likewise, as a number
	lock lock
	nl   *netlink.Handle

	rules6 *nl.NetlinkSocket // for what nl cannot say

	nft  *nft
	fdb  []bridgeEntry // wanted
	macs []lock
	news *news

	mu      sync.Mutex // guards desired and closed, and is held while the host is changed
	desired Desired
	local   Local
	set     bool // desired was given
	closed  bool
}

// New makes a Guard that guards nothing yet, and removes what dead instances have left behind. What an earlier run of this
// one left stays until the first Update, which takes over what it needs. The calling thread's network namespace is the
// Guard's.
func New(cfg Config) (_ *Guard, err error) {
	if cfg.Log == nil {
		cfg.Log = zap.NewNop()
	}
	g := &Guard{cfg: cfg, log: cfg.Log}
	defer func() {
		if err != nil {
			g.release()
		}
	}()
	if err = g.takeName(); err != nil {
		return nil, err
	}
	if g.nl, err = netlink.NewHandle(unix.NETLINK_ROUTE); err != nil {
		return nil, fmt.Errorf("open netlink socket: %w", err)
	}
	if g.rules6, err = openRuleSocket(); err != nil {
		return nil, err
	}
	if g.news, err = openNews(); err != nil {
		return nil, err
	}
	g.nft = openNFT(g.name, func() ([]netlink.Addr, error) { return g.nl.AddrList(nil, netlink.FAMILY_ALL) })
	for _, in := range cfg.Interfaces {
		if in.Mode == Auto {
			return nil, fmt.Errorf("guard %s: no mode chosen", in.Name)
		}
		if in.Mode == Virtual {
			for _, mac := range in.MACs {
				g.fdb = append(g.fdb, bridgeEntry{in.Name, mac})
			}
		}
	}
	if err = g.lockMACs(); err != nil {
		return nil, err
	}
	if err = g.removeLeftovers(); err != nil {
		return nil, fmt.Errorf("remove what an earlier run left behind: %w", err)
	}
	return g, nil
}

// maxInstances is how many instances may go by one name.
const maxInstances = 64

// takeName finds a name that no living instance has.
func (g *Guard) takeName() error {
	base := g.cfg.Instance
	if base == "" {
		var names []string
		for _, in := range g.cfg.Interfaces {
			names = append(names, in.Name)
		}
		base = strings.Join(names, "_")
	}
	if base == "" {
		return errors.New("guard: neither an interface nor a name")
	}
	base = nftName(base[:min(len(base), 100)]) // tables' names end at 255
	g.name = base
	for i := 2; ; i++ {
		g.id = number(g.name)
		l, err := takeLock(g.id)
		if err == nil {
			g.lock = l
			return nil
		}
		if !errors.Is(err, errLocked) || i > maxInstances {
			return fmt.Errorf("guard %s: %w", base, err)
		}
		g.name = fmt.Sprintf("%s-%d", base, i)
	}
}

// nftName makes s a name that the nft command can read: letters, digits and -._/ alone.
func nftName(s string) string {
	return strings.Map(func(c rune) rune {
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.ContainsRune("-._/", c) {
			return c
		}
		return '_'
	}, s)
}

// number is an instance's number, which its routes have as metric.
func number(name string) int {
	h := fnv.New32a()
	h.Write([]byte(name))
	return int(h.Sum32()&0x7fffffff | 1) // a metric of 0 would be no metric
}

// Name is the instance's name, which its nftables table has after "uvs-".
func (g *Guard) Name() string { return g.name }

// Update brings the host in line with d: it installs what is missing and removes what is too much, by comparing with what
// is really there. It does as much as it can; the error says what it could not.
func (g *Guard) Update(d Desired) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return errors.New("guard is closed")
	}
	g.desired, g.set = d, true
	return g.applyLocked(d)
}

func (g *Guard) applyLocked(d Desired) error {
	return errors.Join(g.updateRoutes(g.owned(d)), g.nft.update(g.rules(d)), g.updateBridges(g.fdb), g.updateLocal(g.local))
}

// owned are the addresses that blackhole routes are for.
func (g *Guard) owned(d Desired) []netip.Addr {
	if !slices.ContainsFunc(g.cfg.Interfaces, func(in Interface) bool { return in.Mode == InterfaceMAC }) {
		return nil
	}
	addrs := slices.Clone(d.VIPs)
	for _, gw := range d.Gateways {
		if g.sharesMAC(gw.Iface) {
			addrs = append(addrs, gw.Prefix.Addr())
		}
	}
	return addrs
}

// sharesMAC says that the host's stack sees uvs's frames on an interface.
func (g *Guard) sharesMAC(iface string) bool {
	return slices.ContainsFunc(g.cfg.Interfaces, func(in Interface) bool { return in.Name == iface && in.Mode == InterfaceMAC })
}

// rules are those that nftables is needed for.
func (g *Guard) rules(d Desired) ruleset {
	var r ruleset
	if d.FromVIPs {
		r.virtual = d.VIPs
	}
	for _, in := range g.cfg.Interfaces {
		c := chain{name: "in-" + nftName(in.Name), iface: in.Name, shared: in.Mode == InterfaceMAC}
		if slices.ContainsFunc(r.chains, func(o chain) bool { return o.name == c.name }) {
			c.name += fmt.Sprintf("-%d", len(r.chains))
		}
		for _, gw := range d.Gateways {
			if gw.Iface == in.Name && gw.All && c.shared {
				c.inner = append(c.inner, gw.Prefix.Masked())
			}
		}
		if c.shared && len(d.NATServers) > 0 || len(c.inner) > 0 || len(r.virtual) > 0 {
			r.chains = append(r.chains, c)
		}
	}
	if slices.ContainsFunc(r.chains, func(c chain) bool { return c.shared }) {
		r.servers = d.NATServers
	}
	return r
}

// CanDropFromVIPs says by nil that Desired.FromVIPs can be had, else why not.
func (g *Guard) CanDropFromVIPs() error {
	if g.nft.why != nil {
		return fmt.Errorf("nftables cannot be used: %w", g.nft.why)
	}
	return nil
}

const (
	// settle is how long the host is left alone after news before it is looked at: they come in crowds.
	settle = 100 * time.Millisecond
	// reviewInterval is after which time without news it is looked at all the same.
	reviewInterval = 30 * time.Second
)

// Run puts back what others take away, such as a firewall that is loaded anew and flushes all rules, and follows
// interfaces that come back and, where the kernel's nftables cannot tell local addresses, the host's addresses. It returns
// nil when ctx ends; what is installed stays until Close.
func (g *Guard) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	heard := make(chan struct{}, 1)
	done := make(chan struct{})
	go func() { // ends when news is closed, at the latest
		defer close(done)
		g.news.listen(heard)
	}()
	defer func() { cancel(); g.news.close(); <-done }()
	timer := time.NewTimer(reviewInterval)
	defer timer.Stop()
	failing := ""
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-heard:
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(settle):
			}
		case <-timer.C:
		}
		timer.Reset(reviewInterval)
		if err := g.review(); err == nil {
			failing = ""
		} else if failing != err.Error() { // once, not every time
			failing = err.Error()
			g.log.Error("the host's stack cannot be kept off the virtual addresses", zap.Error(err))
		}
	}
}

func (g *Guard) review() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed || !g.set {
		return nil
	}
	return g.applyLocked(g.desired)
}

// Close removes everything that the Guard installed. It may be called once Run has returned, or without it.
func (g *Guard) Close() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return nil
	}
	g.closed = true
	err := errors.Join(g.updateRoutes(nil), g.nft.update(ruleset{}), g.updateBridges(nil), g.updateLocal(Local{}))
	g.release()
	return err
}

func (g *Guard) release() {
	if g.nl != nil {
		g.nl.Close()
	}
	if g.rules6 != nil {
		g.rules6.Close()
	}
	if g.nft != nil {
		g.nft.close()
	}
	if g.news != nil {
		g.news.close()
	}
	for _, l := range g.macs {
		l.release()
	}
	g.lock.release()
}
