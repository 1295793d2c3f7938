package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"uvs/lab"
)

// LoadLab is a lab with uvsd in it, for `uvsbench load`: HTTP and UDP echo on every real server, and clients by the thousand.
type LoadLab struct {
	Self      string // this program, which makes the load when called with "load"
	Programs  string // where uvsd and uvsadm are
	Method    string // "dr" or "nat"
	Scheduler string // of both services
	Servers   int    // real servers
}

// The lab's clients, which all are client1's.
var loadSources = netip.MustParsePrefix("10.64.0.0/16")

// Run raises the lab and has a child in it make the load that args say, beside --lab. The error says that it could not be made, or
// is the child's *exec.ExitError.
func (l *LoadLab) Run(ctx context.Context, args []string) (err error) {
	if l.Method != "dr" && l.Method != "nat" {
		return fmt.Errorf("no lab %q; there are dr and nat", l.Method)
	}
	if os.Geteuid() != 0 {
		return errors.New("--lab makes network namespaces and needs root")
	}
	dir, err := os.MkdirTemp("", "uvsbench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	cfg, build := lab.Config{RealServers: l.Servers, Name: "load"}, lab.NewDR
	if l.Method == "nat" {
		build = lab.NewNAT
	}
	topo, err := build(cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, topo.Close()) }()
	if err := l.populate(topo); err != nil {
		return err
	}
	if err := l.direct(ctx, topo, dir); err != nil {
		return err
	}
	own := []string{"load", "--target", netip.AddrPortFrom(topo.VIP(), webPort).String(), "--udp-target", netip.AddrPortFrom(topo.VIP(), echoPort).String(),
		"--sources", loadSources.String(), "--subject", "uvs, " + l.Method}
	// The end of ctx is a signal that the child has got as well, and ends in its own way.
	c := topo.Clients[0].Command(context.WithoutCancel(ctx), l.Self, append(own, withoutLab(args)...)...)
	c.Stdin, c.Stdout, c.Stderr = os.Stdin, os.Stdout, os.Stderr
	if err := c.Start(); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = c.Process.Signal(unix.SIGINT) }) // it may be over already
	defer stop()
	return c.Wait()
}

// withoutLab are arguments without those that are the lab's.
func withoutLab(args []string) (rest []string) {
	for i := 0; i < len(args); i++ {
		name, _, joined := strings.Cut(strings.TrimLeft(args[i], "-"), "=")
		if strings.HasPrefix(args[i], "-") && slices.Contains([]string{"lab", "scheduler", "servers", "programs"}, name) {
			if !joined {
				i++
			}
			continue
		}
		rest = append(rest, args[i])
	}
	return rest
}

// populate makes client1 all clients, and starts the real servers' programs.
func (l *LoadLab) populate(topo *lab.Topology) error {
	client := topo.Clients[0]
	lo, err := client.Index("lo")
	if err != nil {
		return err
	}
	local := &netlink.Route{
		LinkIndex: lo, Dst: &net.IPNet{IP: loadSources.Addr().AsSlice(), Mask: net.CIDRMask(loadSources.Bits(), 32)},
		Type: unix.RTN_LOCAL, Scope: unix.RT_SCOPE_HOST, Table: unix.RT_TABLE_LOCAL,
	}
	if err := client.Netlink().RouteAdd(local); err != nil {
		return fmt.Errorf("make %v addresses of %s: %w", loadSources, client, err)
	}
	errs := []error{morePorts(client.Namespace)}
	back := []*lab.Host{topo.Directors[0]}
	if l.Method == "dr" {
		back = append(back, topo.RealServers...)
	}
	for _, h := range back {
		errs = append(errs, h.AddRoute(loadSources, client.Addr(), "eth0"))
	}
	web, echo := uint16(webPort), uint16(echoPort)
	if l.Method == "nat" {
		web, echo = web+natOffset, echo+natOffset
	}
	_, webErr := topo.ServeHTTP(web)
	_, echoErr := topo.ServeUDPEcho(echo)
	return errors.Join(append(errs, webErr, echoErr)...)
}

// direct starts uvsd and gives it the services.
func (l *LoadLab) direct(ctx context.Context, topo *lab.Topology, dir string) error {
	socket := filepath.Join(dir, "uvsd.sock")
	args, method, offset := []string{"--socket", socket, "--interface", "eth0"}, "-g", uint16(0)
	if l.Method == "nat" {
		args = append(args, "--interface", "eth1", "--gateway", netip.PrefixFrom(topo.Gateway, 24).String()+"@eth1")
		method, offset = "-m", natOffset
	}
	log, err := os.Create(filepath.Join(dir, "uvsd.log"))
	if err != nil {
		return err
	}
	defer log.Close()
	c := topo.Directors[0].Command(context.WithoutCancel(ctx), filepath.Join(l.Programs, "uvsd"), args...)
	c.Stdout, c.Stderr = log, log
	if err := c.Start(); err != nil {
		return err
	}
	adm := func(stdin string, args ...string) error {
		c := exec.CommandContext(ctx, filepath.Join(l.Programs, "uvsadm"), append([]string{"--socket", socket}, args...)...)
		c.Stdin = strings.NewReader(stdin)
		if out, err := c.CombinedOutput(); err != nil {
			return fmt.Errorf("uvsadm %s: %w: %s", strings.Join(args, " "), err, bytes.TrimSpace(out))
		}
		return nil
	}
	if err := upWithin(ctx, c, log.Name(), 20*time.Second, func() error { return adm("", "version") }); err != nil {
		return err
	}
	var rules strings.Builder
	for _, s := range []struct {
		flag string
		port uint16
	}{{"-t", webPort}, {"-u", echoPort}} {
		vip := netip.AddrPortFrom(topo.VIP(), s.port)
		fmt.Fprintf(&rules, "-A %s %v -s %s\n", s.flag, vip, l.Scheduler)
		for _, rs := range topo.RealServers {
			fmt.Fprintf(&rules, "-a %s %v -r %v %s -w 1\n", s.flag, vip, netip.AddrPortFrom(rs.Addr(), s.port+offset), method)
		}
	}
	return adm(rules.String(), "-R")
}
