package bench

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"uvs/lab"
	"uvs/packet"
)

// subject is what stands between client and server, to be measured.
type subject struct {
	name     string
	about    string
	oneArmed bool   // it is measured in the one-armed site
	needs    string // a program that must be there
	packets  bool   // it carries the generator's datagrams
	streams  bool   // it carries TCP with offloads on
	state    bool   // it keeps connections in the kernel's table, whose size is the machine's
	pair     bool   // it can have two servers
	// noProcess says that it is no program that can be killed.
	noProcess bool
	start     func(ctx context.Context, b *Wire, s *site) (*running, error)
}

// running is a subject at work.
type running struct {
	target netip.Addr // what the client asks
	offset uint16     // added to the services' ports by the client
	direct bool       // the server is asked at the service's own ports
	mac    packet.MAC // where the generator sends
	pids   []int      // its processes; none if it is in the kernel
	// remove takes a server out of service, for its connections to end by themselves, and restart kills the director and starts it again. nil where there is no
	// such thing.
	remove  func(ctx context.Context, rip netip.Addr) error
	restart func(ctx context.Context) error
}

// oneArmedSuffix ends the names of one-armed subjects.
const oneArmedSuffix = "-1arm"

// subjects are all, references before those that are compared with them.
var subjects = []subject{
	{name: "bare", about: "forwarder without decisions on uvs's own link code", packets: true, streams: true, start: startForwarder("bare")},
	{name: "single", about: "one packet at a time, mdlayher/packet", packets: true, start: startForwarder("single")},
	{name: "testpmd", about: "DPDK's testpmd, net_af_packet", needs: "dpdk-testpmd", packets: true, start: startTestpmd},
	{name: "kernel", about: "IP forwarding in the kernel", packets: true, streams: true, noProcess: true, start: startKernel},
	{name: "nft", about: "nftables DNAT in the kernel", needs: "nft", packets: true, streams: true, state: true, pair: true, noProcess: true, start: startNFT},
	{name: "uvs-dr", about: "uvs, direct routing", packets: true, start: startUVS("-g", 0)},
	{name: "uvs-tun", about: "uvs, IP-in-IP", packets: true, start: startUVS("-i", 0)},
	{name: "uvs-nat", about: "uvs, NAT", packets: true, streams: true, pair: true, start: startUVS("-m", natOffset)},
	{name: "haproxy", about: "HAProxy, TCP mode", needs: "haproxy", streams: true, pair: true, start: startHAProxy},
	{name: "nginx", about: "nginx stream", needs: "nginx", streams: true, pair: true, start: startNginx},
	{name: "nft-1arm", about: "nftables DNAT and masquerade, one-armed", needs: "nft", oneArmed: true, streams: true, state: true, noProcess: true, start: startNFT},
	{name: "haproxy-1arm", about: "HAProxy, TCP mode, one-armed", needs: "haproxy", oneArmed: true, streams: true, start: startHAProxy},
	{name: "nginx-1arm", about: "nginx stream, one-armed", needs: "nginx", oneArmed: true, streams: true, start: startNginx},
	{name: "uvs-dr-1arm", about: "uvs, direct routing, one-armed", oneArmed: true, streams: true, pair: true, start: startUVS("-g", 0)},
}

// launch starts a program in the director's place, its output in a file, and returns it with its log's path.
func (s *site) launch(ctx context.Context, name string, args ...string) (*lab.Cmd, string, error) {
	path := filepath.Join(s.dir, filepath.Base(name)+".log")
	log, err := os.Create(path)
	if err != nil {
		return nil, "", err
	}
	defer log.Close()
	c := s.director.Command(ctx, name, args...)
	c.Stdout, c.Stderr = log, log
	return c, path, c.Start()
}

// upWithin waits until ready says that a launched program is up.
func upWithin(ctx context.Context, c *lab.Cmd, log string, d time.Duration, ready func() error) error {
	for end := time.Now().Add(d); ; time.Sleep(5 * time.Millisecond) {
		err := ready()
		if err == nil {
			return nil
		}
		if time.Now().After(end) || ctx.Err() != nil {
			text, _ := os.ReadFile(log)
			return fmt.Errorf("%s does not come up: %w; it said: %s", filepath.Base(c.Path), errors.Join(err, ctx.Err()), tail(text))
		}
	}
}

// tail is the end of what a program said.
func tail(b []byte) string { return strings.TrimSpace(string(b[max(0, len(b)-600):])) }

// logSays is ready when a log has a word.
func logSays(path, word string) func() error {
	return func() error {
		b, err := os.ReadFile(path)
		if err == nil && !strings.Contains(string(b), word) {
			err = fmt.Errorf("no %q yet", word)
		}
		return err
	}
}

// forwarderReady is what our forwarders say when they forward.
const forwarderReady = "forwarding"

// startForwarder runs one of this package's forwarders, in a process of its own, whose CPU time can be told.
func startForwarder(role string) func(context.Context, *Wire, *site) (*running, error) {
	return func(ctx context.Context, b *Wire, s *site) (*running, error) {
		if err := s.knowForeign(); err != nil {
			return nil, err
		}
		c, log, err := s.launch(ctx, b.Self, "forwarder", role, b.Link, s.clientMAC.String(), s.serverMAC.String())
		if err != nil {
			return nil, err
		}
		if err := upWithin(ctx, c, log, 10*time.Second, logSays(log, forwarderReady)); err != nil {
			return nil, err
		}
		return &running{target: s.rip, offset: natOffset, mac: ForeignMAC[0], pids: []int{c.Process.Pid}}, nil
	}
}

// knowForeign tells both ends that the way leads through a forwarder that answers no ARP.
func (s *site) knowForeign() error {
	return errors.Join(neighbour(s.client, s.dip, ForeignMAC[0]), neighbour(s.server, s.gateway, ForeignMAC[1]))
}

// startTestpmd runs DPDK's forwarder: one core for its commands, one that polls.
func startTestpmd(ctx context.Context, _ *Wire, s *site) (*running, error) {
	if err := s.knowForeign(); err != nil {
		return nil, err
	}
	for i, name := range []string{"eth0", "eth1"} { // its frames are for the interface's own address
		if err := s.director.SetMAC(name, ForeignMAC[i][:]); err != nil {
			return nil, err
		}
		if err := s.director.SetOffloads(name, false); err != nil {
			return nil, err
		}
	}
	c, log, err := s.launch(ctx, "dpdk-testpmd", "-l", "0,1", "--no-huge", "-m", "512", "--no-pci", "--no-telemetry", "--file-prefix", filepath.Base(s.dir),
		"--vdev", "net_af_packet0,iface=eth0,blocksz=4096,framesz=2048,framecnt=2048,qpairs=1",
		"--vdev", "net_af_packet1,iface=eth1,blocksz=4096,framesz=2048,framecnt=2048,qpairs=1",
		"--", "--forward-mode=mac", "--eth-peer=0,"+s.clientMAC.String(), "--eth-peer=1,"+s.serverMAC.String(),
		"--nb-cores=1", "--rxq=1", "--txq=1", "--total-num-mbufs=16384", "--auto-start", "--stats-period=3600")
	if err != nil {
		return nil, err
	}
	if err := upWithin(ctx, c, log, 20*time.Second, logSays(log, "Port statistics")); err != nil {
		return nil, err
	}
	return &running{target: s.rip, offset: natOffset, mac: ForeignMAC[0], pids: []int{c.Process.Pid}}, nil
}

// startKernel has the director's own kernel forward.
func startKernel(_ context.Context, _ *Wire, s *site) (*running, error) {
	err := errors.Join(s.director.Sysctl("net.ipv4.ip_forward", "1"), s.director.AddAddr("eth1", netip.PrefixFrom(s.gateway, 24)))
	return &running{target: s.rip, offset: natOffset, mac: s.directorMAC[0]}, err
}

// startNFT has the director's own kernel translate. One-armed, the answers come back for its own address alone.
func startNFT(ctx context.Context, _ *Wire, s *site) (*running, error) {
	errs := []error{s.director.Sysctl("net.ipv4.ip_forward", "1"), s.director.AddAddr("eth0", netip.PrefixFrom(s.vip, 32))}
	masquerade := ""
	if s.oneArmed {
		masquerade = fmt.Sprintf("\tchain post { type nat hook postrouting priority 100; ip daddr %v masquerade; }\n", s.rip)
	} else {
		errs = append(errs, s.director.AddAddr("eth1", netip.PrefixFrom(s.gateway, 24)))
	}
	load := func(ctx context.Context, rips []netip.Addr) error {
		var dnat strings.Builder
		for _, x := range []struct {
			proto string
			port  uint16
		}{{"tcp", webPort}, {"tcp", bulkPort}, {"tcp", echoPort}, {"udp", packPort}} {
			to := fmt.Sprint(rips[0])
			if len(rips) > 1 {
				to = fmt.Sprintf("numgen inc mod 2 map { 0 : %v, 1 : %v }", rips[0], rips[1])
			}
			fmt.Fprintf(&dnat, "ip daddr %v %s dport %d dnat ip to %s : %d; ", s.vip, x.proto, x.port, to, x.port+natOffset)
		}
		return nft(ctx, s.director, "table ip bench {}\nflush table ip bench\ntable ip bench {\n\tchain pre { type nat hook prerouting priority -100; "+dnat.String()+"}\n"+masquerade+"}\n")
	}
	errs = append(errs, load(ctx, s.rips))
	remove := func(ctx context.Context, rip netip.Addr) error { return load(ctx, s.without(rip)) }
	return &running{target: s.vip, mac: s.directorMAC[0], remove: remove}, errors.Join(errs...)
}

// without are the servers but one.
func (s *site) without(rip netip.Addr) []netip.Addr {
	return slices.DeleteFunc(slices.Clone(s.rips), func(a netip.Addr) bool { return a == rip })
}
