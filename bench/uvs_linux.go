package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"uvs/packet"
)

// startUVS runs uvsd with services that are forwarded by a method of uvsadm's, to the server's ports offset from the VIP's.
func startUVS(method string, offset uint16) func(context.Context, *Wire, *site) (*running, error) {
	return func(ctx context.Context, b *Wire, s *site) (*running, error) {
		socket := filepath.Join(s.dir, "uvsd.sock")
		args := []string{"--socket", socket, "--mac", "virtual", "--link", b.Link, "--interface", "eth0"}
		if !s.oneArmed {
			args = append(args, "--interface", "eth1")
		}
		if !s.oneArmed && !s.sunk { // on a gateway's segment uvs asks for the server itself, which wouldn't say that it is the sink
			args = append(args, "--gateway", netip.PrefixFrom(s.gateway, 24).String()+"@eth1")
		}
		adm := func(ctx context.Context, stdin string, args ...string) ([]byte, error) {
			c := exec.CommandContext(ctx, filepath.Join(b.Programs, "uvsadm"), append([]string{"--socket", socket}, args...)...)
			var stderr bytes.Buffer
			c.Stdin, c.Stderr = strings.NewReader(stdin), &stderr
			out, err := c.Output()
			if err != nil {
				err = fmt.Errorf("uvsadm %s: %w: %s", strings.Join(args, " "), err, bytes.TrimSpace(stderr.Bytes()))
			}
			return out, err
		}
		r := &running{target: s.vip, direct: offset == 0}
		start := func(ctx context.Context) error {
			c, log, err := s.launch(ctx, filepath.Join(b.Programs, "uvsd"), append(args, b.UVSDArgs...)...)
			if err != nil {
				return err
			}
			r.pids = []int{c.Process.Pid}
			up := func() error {
				_, err := adm(ctx, "", "version")
				return err
			}
			if err := upWithin(ctx, c, log, 10*time.Second, up); err != nil {
				return err
			}
			return s.configureUVS(ctx, adm, method, offset)
		}
		if err := start(ctx); err != nil {
			return nil, err
		}
		r.remove = func(ctx context.Context, rip netip.Addr) error {
			_, err := adm(ctx, "", "drain", "--no-wait", netip.AddrPortFrom(rip, webPort+offset).String())
			return err
		}
		r.restart = func(ctx context.Context) error { return errors.Join(kill(r.pids), start(ctx)) }
		out, err := adm(ctx, "", "status", "--json")
		if err != nil {
			return nil, err
		}
		r.mac, err = statusMAC(out, "eth0")
		return r, err
	}
}

// configureUVS gives uvsd its services. Where a server may fail, uvsd asks the servers whether they are there.
func (s *site) configureUVS(ctx context.Context, adm func(context.Context, string, ...string) ([]byte, error), method string, offset uint16) error {
	var rules strings.Builder
	for _, service := range []struct {
		flag string
		port uint16
	}{{"-t", webPort}, {"-t", bulkPort}, {"-t", echoPort}, {"-u", packPort}} {
		vip := netip.AddrPortFrom(s.vip, service.port)
		fmt.Fprintf(&rules, "-A %s %v -s wlc\n", service.flag, vip)
		for _, rip := range s.rips {
			fmt.Fprintf(&rules, "-a %s %v -r %v %s -w 1\n", service.flag, vip, netip.AddrPortFrom(rip, service.port+offset), method)
		}
	}
	_, err := adm(ctx, rules.String(), "-R")
	if err == nil && s.pair {
		_, err = adm(ctx, "", "check", "add", "-t", netip.AddrPortFrom(s.vip, webPort).String(), "tcp",
			"interval="+checkInterval.String(), "timeout="+checkInterval.String(), "fall=2", "rise=1")
	}
	return err
}

// checkInterval is how often directors ask servers, and how long they wait for an answer, where a server may fail.
const checkInterval = 500 * time.Millisecond

// statusMAC is uvs's address on an interface, as uvsadm status --json tells it.
func statusMAC(status []byte, ifname string) (packet.MAC, error) {
	var s struct {
		Interfaces []struct{ Name, MAC string }
	}
	if err := json.Unmarshal(status, &s); err != nil {
		return packet.MAC{}, fmt.Errorf("uvsadm status --json: %w", err)
	}
	for _, i := range s.Interfaces {
		if i.Name == ifname {
			mac, err := net.ParseMAC(i.MAC)
			if err != nil {
				return packet.MAC{}, fmt.Errorf("uvsadm status --json: %w", err)
			}
			return packet.MAC(mac), nil
		}
	}
	return packet.MAC{}, fmt.Errorf("uvsadm status --json has no interface %s", ifname)
}
