package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"uvs/lab"
)

// method is a forwarding method and what a lab for it looks like.
type method struct {
	name     string // DR
	title    string
	flag     string // of uvsadm -a
	raise    func(lab.Config) (*lab.Topology, error)
	web, udp uint16 // ports of the real servers; the virtual service's are webPort and udpPort
	uvsd     func(*lab.Topology) []string
	tunnel   bool   // uvsdecap runs on the real servers
	picture  string // with {VIP} and so on
}

// family is IPv4 or IPv6 on a stage: the same services and servers by other addresses.
type family struct {
	name string
	vip  netip.Addr
	addr func(*lab.Host) netip.Addr
}

// at is the virtual address with a port, as uvsadm takes it.
func (f family) at(port uint16) string { return netip.AddrPortFrom(f.vip, port).String() }

// The virtual services' ports.
const (
	webPort = 80
	udpPort = 53
)

var methods = []method{
	{
		name: "DR", title: "direct routing", flag: "-g", raise: lab.NewDR, web: webPort, udp: udpPort,
		uvsd: func(*lab.Topology) []string { return []string{"--interface", "eth0"} },
		picture: `
    client1 {CIP} ---+--- director1 {DIP}: uvsd, which owns the VIP {VIP}
                           |
                           +--- rs1 {RIP1}, rs2 {RIP2}, rs3 {RIP3}: answer the client directly
`,
	},
	{
		name: "TUN", title: "tunnelling", flag: "-i", raise: lab.NewTUN, web: webPort, udp: udpPort, tunnel: true,
		uvsd: func(*lab.Topology) []string { return []string{"--interface", "eth0"} },
		picture: `
    client1 {CIP} ---+--- director1 {DIP}: uvsd, which owns the VIP {VIP}
                           |
                         router
                           |
                           +--- rs1 {RIP1}, rs2 {RIP2}, rs3 {RIP3}: uvsdecap unpacks
                                what the tunnel brings, and they answer the client directly
`,
	},
	{
		name: "NAT", title: "masquerading", flag: "-m", raise: lab.NewNAT, web: 8080, udp: 5353,
		uvsd: func(t *lab.Topology) []string {
			args := []string{"--interface", "eth0,eth1", "--gateway", netip.PrefixFrom(t.Gateway, 24).String() + "@eth1"}
			if t.Config.IPv6 {
				args = append(args, "--gateway", netip.PrefixFrom(t.Gateway6, 64).String()+"@eth1")
			}
			return args
		},
		picture: `
    client1 {CIP} --- director1 {DIP}: uvsd, which owns the VIP {VIP} outside
                            |   and the real servers' gateway {GW} inside
                            |
                            +--- rs1 {RIP1}, rs2 {RIP2}, rs3 {RIP3}: answer through it
`,
	},
}

// stage is the lab of one method with a director in it.
type stage struct {
	demo     *demo
	method   method
	topo     *lab.Topology
	families []family
	socket   string
	log      string
	uvsd     *lab.Cmd
	servers  map[string]*lab.Cmd // by host
	decaps   map[string]*lab.Cmd
}

const (
	realServers = 4               // hosts for real servers; the last is the reserve
	loadClients = 4               // that request while servers change
	clients     = loadClients + 1 // the last is for who plays with what is left up
)

// raise makes a stage whose director runs nothing yet.
func (d *demo) raise(m method) (*stage, error) {
	topo, err := m.raise(lab.Config{
		Clients: clients, RealServers: realServers, IPv6: d.ipv6, Named: d.keep, Keep: d.keep && !d.rootless,
	})
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(d.dir, strings.ToLower(m.name))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, errors.Join(err, topo.Close())
	}
	families := []family{{"IPv4", topo.VIP(), (*lab.Host).Addr}}
	if d.ipv6 {
		families = append(families, family{"IPv6", topo.VIPs6[0], (*lab.Host).Addr6})
	}
	return &stage{
		demo: d, method: m, topo: topo, families: families, servers: map[string]*lab.Cmd{}, decaps: map[string]*lab.Cmd{},
		socket: filepath.Join(dir, "uvsd.sock"), log: filepath.Join(dir, "uvsd.log"),
	}, nil
}

// close stops uvsd and uvsdecap as an operator does, and takes the rest down.
func (s *stage) close() error {
	var err error
	if s.uvsd != nil {
		err = s.end(s.uvsd)
	}
	for _, c := range s.decaps {
		err = errors.Join(err, s.end(c))
	}
	s.topo.Discard()
	return errors.Join(err, s.topo.Close())
}

// end asks a process to end and waits for it.
func (s *stage) end(c *lab.Cmd) error {
	if err := c.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	kill := time.AfterFunc(10*time.Second, func() { c.Process.Kill() })
	defer kill.Stop()
	if err := c.Wait(); err != nil {
		return fmt.Errorf("%s: %w", filepath.Base(c.Path), err)
	}
	return nil
}

// startUVSD starts the director and waits until it answers.
func (s *stage) startUVSD(ctx context.Context, args ...string) error {
	log, err := os.Create(s.log)
	if err != nil {
		return err
	}
	defer log.Close()
	c := s.topo.Directors[0].Command(context.Background(), filepath.Join(s.demo.bin, "uvsd"), append(args, "--socket", s.socket)...)
	c.Stdout, c.Stderr = log, log
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: !s.demo.keep || s.demo.rootless} // a ^C is for us: we stop it in order
	if err := c.Start(); err != nil {
		return err
	}
	s.uvsd = c
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		_, err := s.uvsadm(ctx, "version")
		if err == nil {
			return nil
		}
		if c.Process.Signal(syscall.Signal(0)) != nil || time.Now().After(end) || ctx.Err() != nil {
			return fmt.Errorf("uvsd does not come up: %w", err)
		}
	}
}

// uvsadm runs uvsadm as anybody would: it needs uvsd's socket, not its network.
func (s *stage) uvsadm(ctx context.Context, args ...string) (string, error) {
	return s.uvsadmReading(ctx, "", args...)
}

// uvsadmReading is uvsadm with something to read.
func (s *stage) uvsadmReading(ctx context.Context, stdin string, args ...string) (string, error) {
	c := exec.CommandContext(ctx, filepath.Join(s.demo.bin, "uvsadm"), append([]string{"--socket", s.socket}, args...)...)
	var stderr bytes.Buffer
	c.Stdin, c.Stderr = strings.NewReader(stdin), &stderr
	out, err := c.Output()
	if err != nil {
		return "", fmt.Errorf("uvsadm %s: %w: %s", strings.Join(args, " "), err, bytes.TrimSpace(stderr.Bytes()))
	}
	return string(out), nil
}

// run shows a uvsadm command and runs it.
func (s *stage) run(ctx context.Context, args ...string) error {
	fmt.Println("  $ uvsadm " + strings.Join(args, " "))
	_, err := s.uvsadm(ctx, args...)
	return err
}

// host is a real server by number, from 1.
func (s *stage) host(number int) *lab.Host { return s.topo.RealServers[number-1] }

// rip is a real server's address as uvsadm takes it.
func (s *stage) rip(f family, number int, port uint16) string {
	return netip.AddrPortFrom(f.addr(s.host(number)), port).String()
}

// startServer starts the web and UDP servers of a real server, as a process of its own, and waits until they listen.
func (s *stage) startServer(ctx context.Context, number int) error {
	h := s.host(number)
	var web, udp []string
	for _, f := range s.families {
		addr := f.addr(h)
		if s.method.flag != "-m" {
			addr = f.vip // which the host has on lo, or uvsdecap on its device: packets come to it unchanged
		}
		web = append(web, netip.AddrPortFrom(addr, s.method.web).String())
		udp = append(udp, netip.AddrPortFrom(addr, s.method.udp).String())
	}
	if s.method.tunnel {
		if err := s.startDecap(ctx, h); err != nil {
			return err
		}
	}
	c := h.Command(context.Background(), s.demo.self, serverRole, h.Name(), strings.Join(web, ","), strings.Join(udp, ","))
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: !s.demo.keep || s.demo.rootless}
	// Not to our own: whoever reads that, of a demo that is left up, would wait for the servers' end.
	log, err := os.Create(filepath.Join(filepath.Dir(s.log), h.Name()+".log"))
	if err != nil {
		return err
	}
	defer log.Close()
	c.Stderr = log
	ready, err := c.StdoutPipe()
	if err != nil {
		return err
	}
	if err := c.Start(); err != nil {
		return err
	}
	s.servers[h.Name()] = c
	if line, _ := bufio.NewReader(ready).ReadString('\n'); line != readyLine {
		return fmt.Errorf("the server on %s does not come up; it says in %s why", h.Name(), log.Name())
	}
	return nil
}

// stopServer ends the servers of a real server.
func (s *stage) stopServer(number int) error {
	name := s.host(number).Name()
	c := s.servers[name]
	delete(s.servers, name)
	return s.end(c)
}

// active is how many connections a real server of a family's web service has, as uvsadm lists them: the column ActiveConn.
func (s *stage) active(ctx context.Context, fam family, number int) (int, error) {
	out, err := s.uvsadm(ctx, "-L", "-n", "-t", fam.at(webPort))
	if err != nil {
		return 0, err
	}
	rip := s.rip(fam, number, s.method.web)
	for line := range strings.Lines(out) {
		if f := strings.Fields(line); len(f) == 6 && f[0] == "->" && f[1] == rip {
			return strconv.Atoi(f[4])
		}
	}
	return 0, fmt.Errorf("%s is not listed:\n%s", rip, out)
}
