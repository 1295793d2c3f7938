package main

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"uvs/internal/conformance"
	"uvs/lab/uml"
)

const replyTimeout = time.Minute

// modules are all that the comparison needs; the kernel's schedulers and what gives packets marks among them.
var modules = strings.Fields(`ip_vs ip_vs_rr ip_vs_wrr ip_vs_lc ip_vs_wlc ip_vs_lblc ip_vs_lblcr ip_vs_dh ip_vs_sh ip_vs_sed
	ip_vs_nq ip_vs_mh ip_vs_fo ip_vs_ovf iptable_mangle ip6table_mangle xt_mark`)

// machine is a running kernel with the real ip_vs and two wires.
type machine struct {
	*uml.Machine
	wires  [2]*net.UnixConn
	frames chan arrival
	pings  uint16
}

// arrival is a frame that came out of the machine, or the end of a wire.
type arrival struct {
	wire  int
	frame []byte
	err   error
}

// boot starts a machine in the recorded topology.
func boot(t *uml.Tools) (m *machine, err error) {
	m = &machine{frames: make(chan arrival, 1<<12)}
	dir, err := os.MkdirTemp("", "uvs-wires-")
	if err != nil {
		return nil, err
	}
	defer func() {
		_ = os.RemoveAll(dir) // once both are connected, or never will be
		if err != nil {
			m.close()
		}
	}()
	var listeners [2]*net.UnixListener
	var devices []string
	for i, mac := range conformance.DirectorMACs() {
		path := filepath.Join(dir, fmt.Sprintf("wire%d", i))
		if listeners[i], err = net.ListenUnix("unixpacket", &net.UnixAddr{Name: path, Net: "unixpacket"}); err != nil {
			return nil, err
		}
		defer listeners[i].Close()
		devices = append(devices, uml.Wire(path, mac[:]))
	}
	if m.Machine, err = uml.Boot(t, uml.Config{Modules: modules, Devices: devices}); err != nil {
		return nil, err
	}
	// An interface connects its wire when it is set up.
	if _, err := m.Shell(setUp); err != nil {
		return nil, err
	}
	for i, l := range listeners {
		if err := l.SetDeadline(time.Now().Add(replyTimeout)); err != nil {
			return nil, err
		}
		if m.wires[i], err = l.AcceptUnix(); err != nil {
			return nil, err
		}
		go m.listen(i)
	}
	_, err = m.barrier()
	return m, err
}

// close ends the machine and removes its files.
func (m *machine) close() {
	if m.Machine != nil {
		m.Close()
	}
	for _, w := range m.wires {
		if w != nil {
			_ = w.Close()
		}
	}
}

// setUp makes the machine the director of the recorded topology.
const setUp = `set -e
cd /proc/sys/net/ipv4
echo 1 >ip_forward
for i in conf/*; do echo 0 >$i/rp_filter; echo 0 >$i/send_redirects; done
echo 0 >icmp_ratelimit; echo 100000 >icmp_msgs_per_sec; echo 100000 >icmp_msgs_burst
for i in vec0 vec1; do
	ip link set $i addrgenmode none
	cd /proc/sys/net/ipv6/conf/$i
	echo 0 >accept_dad; echo 0 >router_solicitations; echo 0 >disable_ipv6
done
echo 1 >/proc/sys/net/ipv6/conf/all/forwarding; echo 0 >/proc/sys/net/ipv6/icmp/ratelimit
ip link set lo up
for a in 10.9.0.1/24 10.9.0.100/32 10.9.0.101/32 10.9.0.102/32; do ip addr add $a dev vec0; done
ip addr add 10.1.0.1/24 dev vec1
ip route add local 198.18.0.0/15 dev lo table local
ip link set vec0 up
ip link set vec1 up
ip neigh replace 10.9.0.254 lladdr 02:00:00:00:09:fe dev vec0 nud permanent
ip route add default via 10.9.0.254
ip neigh replace 10.1.0.250 lladdr 02:00:00:00:01:fa dev vec1 nud permanent
ip route add 10.2.0.0/16 via 10.1.0.250
for a in 1/64 100/128 101/128 102/128; do ip addr add 2001:db8:9::$a dev vec0 nodad; done
ip addr add 2001:db8:1::1/64 dev vec1 nodad
n=1
while [ $n -le 24 ]; do
	ip addr add 2001:db8:aaaa::$n/128 dev vec0 nodad
	n=$((n + 1))
done
ip neigh replace 2001:db8:9::fe lladdr 02:00:00:00:09:fe dev vec0 nud permanent
ip -6 route add default via 2001:db8:9::fe dev vec0
n=11
while [ $n -le 30 ]; do
	ip neigh replace 10.1.0.$n lladdr 02:00:00:00:01:$(printf %02x $n) dev vec1 nud permanent
	ip neigh replace 2001:db8:1::$n lladdr 02:00:00:00:01:$(printf %02x $n) dev vec1 nud permanent
	n=$((n + 1))
done`

// listen takes what comes out on a wire until it is closed.
func (m *machine) listen(wire int) {
	b := make([]byte, 1<<16)
	for {
		n, err := m.wires[wire].Read(b)
		if err != nil {
			m.frames <- arrival{wire: wire, err: err}
			return
		}
		m.frames <- arrival{wire: wire, frame: append([]byte(nil), b[:n]...)}
	}
}

// inject sends a frame into a wire and returns all that came out because of it.
func (m *machine) inject(wire int, frame []byte) ([]conformance.Sent, error) {
	if _, err := m.wires[wire].Write(frame); err != nil {
		return nil, err
	}
	out, err := m.barrierOn(wire)
	if err != nil {
		return nil, err
	}
	more, err := m.barrierOn(1 - wire)
	return append(out, more...), err
}

// barrier returns what the machine has sent so far.
func (m *machine) barrier() ([]conformance.Sent, error) {
	out, err := m.barrierOn(0)
	if err != nil {
		return nil, err
	}
	more, err := m.barrierOn(1)
	return append(out, more...), err
}

// barrierOn has the machine answer an ARP request on a wire. The machine takes frames in order, so that what came before the
// request is done with when the answer is there. Frames on the other wire may still be on their way.
func (m *machine) barrierOn(wire int) ([]conformance.Sent, error) {
	m.pings++
	asker := [6]byte{2, 0xba, byte(m.pings >> 8), byte(m.pings), 0, byte(wire)}
	net := [2]byte{9, 1}[wire]
	from, to := netip.AddrFrom4([4]byte{10, net, 0, 253}), netip.AddrFrom4([4]byte{10, net, 0, 1})
	f := append([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, asker[:]...)
	f = append(f, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1) // ARP: Ethernet, IPv4, a request
	f = append(append(f, asker[:]...), from.AsSlice()...)
	f = append(append(f, 0, 0, 0, 0, 0, 0), to.AsSlice()...)
	f = append(f, make([]byte, 60-len(f))...)
	if _, err := m.wires[wire].Write(f); err != nil {
		return nil, err
	}
	var out []conformance.Sent
	for timeout := time.After(replyTimeout); ; {
		select {
		case a := <-m.frames:
			switch {
			case a.err != nil:
				return nil, fmt.Errorf("wire %d: %w", a.wire, a.err)
			case len(a.frame) < 14:
			case binary.BigEndian.Uint16(a.frame[12:]) == 0x0806:
				if a.wire == wire && [6]byte(a.frame[:6]) == asker {
					return out, nil
				}
			case !conformance.Neighbourhood(a.frame):
				out = append(out, conformance.Sent{Wire: a.wire, Frame: a.frame})
			}
		case <-timeout:
			return nil, fmt.Errorf("wire %d: the machine doesn't answer ARP", wire)
		}
	}
}
