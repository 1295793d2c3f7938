package bench

import (
	"bytes"
	"context"
	"encoding/json"
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
		c, log, err := s.launch(ctx, filepath.Join(b.Programs, "uvsd"), append(args, b.UVSDArgs...)...)
		if err != nil {
			return nil, err
		}
		adm := func(stdin string, args ...string) ([]byte, error) {
			c := exec.CommandContext(ctx, filepath.Join(b.Programs, "uvsadm"), append([]string{"--socket", socket}, args...)...)
			var stderr bytes.Buffer
			c.Stdin, c.Stderr = strings.NewReader(stdin), &stderr
			out, err := c.Output()
			if err != nil {
				err = fmt.Errorf("uvsadm %s: %w: %s", strings.Join(args, " "), err, bytes.TrimSpace(stderr.Bytes()))
			}
			return out, err
		}
		up := func() error {
			_, err := adm("", "version")
			return err
		}
		if err := upWithin(ctx, c, log, 10*time.Second, up); err != nil {
			return nil, err
		}
		var rules strings.Builder
		for _, service := range []struct {
			flag string
			port uint16
		}{{"-t", webPort}, {"-t", bulkPort}, {"-t", echoPort}, {"-u", packPort}} {
			vip := netip.AddrPortFrom(s.vip, service.port)
			fmt.Fprintf(&rules, "-A %s %v -s wlc\n-a %s %v -r %v %s -w 1\n", service.flag, vip, service.flag, vip,
				netip.AddrPortFrom(s.rip, service.port+offset), method)
		}
		if _, err := adm(rules.String(), "-R"); err != nil {
			return nil, err
		}
		out, err := adm("", "status", "--json")
		if err != nil {
			return nil, err
		}
		mac, err := statusMAC(out, "eth0")
		return &running{target: s.vip, mac: mac, direct: offset == 0, pids: []int{c.Process.Pid}}, err
	}
}

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
