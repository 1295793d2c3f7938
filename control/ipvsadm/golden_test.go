package ipvsadm

import (
	"encoding/hex"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"uvs/control/api"
)

// transcript is a command of a golden file with all that belongs to it.
type transcript struct {
	args       []string
	in         string
	out, errs  string
	exit       int
	hasCommand bool // of ipvsadm
}

// transcripts reads a golden file: "$ command", "< input", output, "--- stderr", "--- exit N".
func transcripts(t testing.TB, file string) (list []transcript) {
	t.Helper()
	b, err := os.ReadFile(golden + file)
	if err != nil {
		t.Fatal(err)
	}
	var cur *transcript
	inErr := false
	for l := range strings.Lines(string(b)) {
		text := strings.TrimSuffix(l, "\n")
		switch {
		case strings.HasPrefix(l, "$ "):
			fields := strings.Fields(l)[1:]
			list = append(list, transcript{args: fields[1:], hasCommand: fields[0] == "ipvsadm" || fields[0] == "ipvsadm-save"})
			cur, inErr = &list[len(list)-1], false
		case cur == nil:
		case l == "<\n" || strings.HasPrefix(l, "< "):
			cur.in += strings.TrimPrefix(strings.TrimPrefix(l, "<"), " ")
		case text == "--- stderr":
			inErr = true
		case strings.HasPrefix(l, "--- exit "):
			cur.exit, _ = strconv.Atoi(strings.TrimPrefix(text, "--- exit "))
			cur = nil
		case inErr:
			cur.errs += l
		default:
			cur.out += l
		}
	}
	if len(list) == 0 {
		t.Fatalf("%s: no commands", file)
	}
	return list
}

// play carries out the commands of a golden file.
func (m *machine) play(t *testing.T, file string) {
	t.Helper()
	for _, tr := range transcripts(t, file) {
		if !tr.hasCommand {
			continue
		}
		out, errs, exit := m.run(tr.args, tr.in)
		if slices.Contains(tr.args, "--nosort") {
			out, tr.out = ordered(out), ordered(tr.out)
		}
		if out != tr.out || errs != tr.errs || exit != tr.exit {
			t.Errorf("%s: ipvsadm %q\n got exit %d, %q\n%swant exit %d, %q\n%s", file, tr.args, exit, errs, out, tr.exit, tr.errs, tr.out)
		}
	}
}

// setUp makes the table of 00-setup.txt.
func setUp(t *testing.T) *machine {
	t.Helper()
	b, err := os.ReadFile(golden + "00-setup.txt")
	if err != nil {
		t.Fatal(err)
	}
	m := newMachine()
	m.names = shortHosts{}
	for l := range strings.Lines(string(b)) {
		if line, ok := strings.CutPrefix(l, "ipvsadm "); ok {
			m.must(t, line)
		}
	}
	return m
}

// traffic is what the packets of 00-setup.txt leave behind at one service (server empty) or server.
var traffic = []struct {
	service, server              string
	active, inactive, persistent uint64
	stats                        api.Stats
	rates                        api.Rates
}{
	{"tcp 10.9.0.100:80", "", 0, 0, 0, api.Stats{Conns: 8, InPackets: 14, InBytes: 592}, api.Rates{Conns: 1, InPackets: 1, InBytes: 42}},
	{"tcp 10.9.0.100:80", "10.1.0.11:80", 1, 1, 0, api.Stats{Conns: 2, InPackets: 4, InBytes: 168}, api.Rates{InBytes: 12}},
	{"tcp 10.9.0.100:80", "10.1.0.12:8080", 1, 0, 0, api.Stats{Conns: 1, InPackets: 1, InBytes: 44}, api.Rates{InBytes: 3}},
	{"tcp 10.9.0.100:80", "10.1.0.13:80", 4, 1, 0, api.Stats{Conns: 5, InPackets: 9, InBytes: 380}, api.Rates{InPackets: 1, InBytes: 27}},
	{"tcp 10.9.0.100:443", "", 0, 0, 0, api.Stats{Conns: 4, InPackets: 4, InBytes: 176}, api.Rates{InBytes: 12}},
	{"tcp 10.9.0.100:443", "10.1.0.11:443", 4, 0, 4, api.Stats{Conns: 4, InPackets: 4, InBytes: 176}, api.Rates{InBytes: 12}},
	{"tcp 10.9.0.101:0", "", 0, 0, 0, api.Stats{Conns: 2, InPackets: 2, InBytes: 88}, api.Rates{InBytes: 6}},
	{"tcp 10.9.0.101:0", "10.1.0.15:0", 2, 0, 1, api.Stats{Conns: 2, InPackets: 2, InBytes: 88}, api.Rates{InBytes: 6}},
	{"udp 10.9.0.100:53", "", 0, 0, 0, api.Stats{Conns: 3, InPackets: 3, InBytes: 180}, api.Rates{InBytes: 13}},
	{"udp 10.9.0.100:53", "10.1.0.11:5353", 0, 0, 0, api.Stats{Conns: 1, InPackets: 1, InBytes: 60}, api.Rates{InBytes: 4}},
	{"udp 10.9.0.100:53", "10.1.0.12:5354", 0, 0, 0, api.Stats{Conns: 2, InPackets: 2, InBytes: 120}, api.Rates{InBytes: 8}},
}

func (m *machine) pass() {
	for _, row := range traffic {
		for _, s := range m.services {
			if s.ServiceKey.String() != row.service {
				continue
			}
			if row.server == "" {
				s.Stats, s.Rates = row.stats, row.rates
			}
			for i := range s.Servers {
				if srv := &s.Servers[i]; srv.ServerKey.String() == row.server {
					srv.Active, srv.Inactive, srv.Persistent, srv.Stats, srv.Rates = row.active, row.inactive, row.persistent, row.stats, row.rates
				}
			}
		}
	}
}

// readConns reads proc-ip_vs_conn.txt, every entry older seconds younger than it was.
func (m *machine) readConns(t *testing.T, older uint32) {
	t.Helper()
	b, err := os.ReadFile(golden + "proc-ip_vs_conn.txt")
	if err != nil {
		t.Fatal(err)
	}
	m.conns = nil
	for l := range strings.Lines(string(b)) {
		f := strings.Fields(l)
		if len(f) < 9 || (f[0] != "TCP" && f[0] != "UDP") {
			continue
		}
		ap := func(addr, port string) netip.AddrPort {
			a, err1 := hex.DecodeString(addr)
			p, err2 := strconv.ParseUint(port, 16, 16)
			if err1 != nil || err2 != nil {
				t.Fatalf("%s: %v, %v", l, err1, err2)
			}
			return netip.AddrPortFrom(netip.AddrFrom4([4]byte(a)), uint16(p))
		}
		left, err := strconv.ParseUint(f[8], 10, 32)
		if err != nil {
			t.Fatal(err)
		}
		m.conns = append(m.conns, api.Connection{Protocol: strings.ToLower(f[0]), Client: ap(f[1], f[2]), Virtual: ap(f[3], f[4]),
			Server: ap(f[5], f[6]), State: f[7], ExpiresSeconds: uint32(left) + older})
	}
}

func TestListingsAreIpvsadmsColumnForColumn(t *testing.T) {
	files, err := filepath.Glob(golden + "out-*.txt")
	if err != nil || len(files) < 40 {
		t.Fatalf("%d golden listings, %v", len(files), err)
	}
	for _, path := range files {
		file := filepath.Base(path)
		t.Run(file, func(t *testing.T) {
			m := setUp(t)
			if !strings.HasPrefix(file, "out-00") {
				m.pass()
				// The connections were listed at different times; their first line tells when.
				for older := range uint32(4) {
					m.readConns(t, older)
					if first := fmt.Sprintf("TCP 00:%d  SYN_RECV", m.conns[0].ExpiresSeconds); strings.Contains(transcripts(t, file)[0].out, first) {
						break
					}
				}
			}
			if file == "out-Z-after-stats.txt" {
				m.must(t, "-A -t 10.9.0.100:8000 -s rr", "-Z")
			}
			m.play(t, file)
		})
	}
}

func TestZeroingAServiceLeavesTheOthers(t *testing.T) {
	m := setUp(t)
	m.pass()
	m.must(t, "-Z -t 10.9.0.100:80")
	web, _, _ := m.run(strings.Fields("-Ln --stats -t 10.9.0.100:80"), "")
	dns, _, _ := m.run(strings.Fields("-Ln --stats -u 10.9.0.100:53"), "")
	if strings.Contains(web, "592") || !strings.Contains(dns, "180") {
		t.Errorf("after -Z of one service:\n%s%s", web, dns)
	}
}

func TestRoundTripsAreIpvsadms(t *testing.T) {
	m := setUp(t)
	for _, file := range []string{"roundtrip-1-save.txt", "roundtrip-2-clear.txt", "roundtrip-3-list.txt", "roundtrip-4-restore.txt"} {
		m.play(t, file)
	}
	if m.changes != 24+2 {
		t.Errorf("%d changes; want 24 for the setup, one for -C and one for -R", m.changes)
	}
	m.pass() // the kernel found the counters of the old servers again
	for _, file := range []string{"roundtrip-5-list.txt", "roundtrip-6-nosort.txt", "roundtrip-8-restore-on-top.txt",
		"roundtrip-9-restore-bad.txt", "roundtrip-9b-list.txt", "roundtrip-9c-list.txt"} {
		m.play(t, file)
	}
}

func TestRestoreIsIpvsadms(t *testing.T) {
	m := newMachine()
	m.names = shortHosts{}
	m.play(t, "restore-extra.txt")
}

func TestSyncDaemonsAreIpvsadms(t *testing.T) {
	files, err := filepath.Glob(golden + "daemon-*.txt")
	if err != nil || len(files) < 20 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	m := setUp(t)
	m.must(t, "-A -t 10.9.0.100:8000 -s rr")
	slices.Sort(files)
	for _, path := range files {
		m.play(t, filepath.Base(path))
	}
}

func TestLargeNumbersAreIpvsadms(t *testing.T) {
	m := newMachine()
	m.must(t, "-A -u 10.9.0.100:9", "-a -u 10.9.0.100:9 -r 10.1.0.11:9")
	s := m.services[0]
	s.Stats = api.Stats{Conns: 1, InPackets: 78000, InBytes: 109200000}
	s.Rates = api.Rates{InPackets: 5621, InBytes: 7869094}
	s.Servers[0].Stats, s.Servers[0].Rates = s.Stats, s.Rates
	for _, file := range []string{"big-1-stats.txt", "big-2-stats-exact.txt", "big-3-rate.txt", "big-4-rate-exact.txt"} {
		m.play(t, file)
	}
	// Recorded from ipvsadm with a library that answers with the number wanted.
	for _, row := range []struct {
		n           uint64
		want, exact string
	}{
		{99999999, " 99999999", " 99999999"},
		{100000000, "  100000K", " 100000000"},
		{999999999, "  999999K", " 999999999"},
		{1000000000, "    1000M", " 1000000000"},
		{99999999999, "   99999M", " 99999999999"},
		{100000000000, "     100G", " 100000000000"},
		{99999999999999, "   99999G", " 99999999999999"},
		{100000000000000, "     100T", " 100000000000000"},
		{1<<64 - 1, "18446744T", " 18446744073709551615"},
	} {
		s.Stats = api.Stats{Conns: row.n, InPackets: row.n, OutPackets: row.n, InBytes: row.n, OutBytes: row.n}
		for want, option := range map[string]string{row.want: "-n", row.exact: "--exact"} {
			out, _, _ := m.run([]string{"-L", "-u", "10.9.0.100:9", "--stats", option}, "")
			if line := strings.Split(out, "\n")[2]; line[33:] != strings.Repeat(want, 5) {
				t.Errorf("%d with %s is printed %q, want %q", row.n, option, line[33:], strings.Repeat(want, 5))
			}
		}
	}
}

func TestOddConnectionsAreListedAsIpvsadmDoes(t *testing.T) {
	m := newMachine()
	for _, c := range []string{
		"tcp 198.51.100.1:2001 10.9.0.100:443 10.1.0.11:443 SYN_RECV 53",
		"ip 198.51.100.1:0 0.0.0.7:0 10.1.0.11:0 NONE 0",
		"udp 192.0.2.5:1005 10.9.0.100:53 10.1.0.13:5353 UDP 3600",
		"tcp 192.0.2.5:1005 10.9.0.100:80 10.1.0.13:80 ESTABLISHED 2678400",
		"sctp 192.0.2.5:1005 10.9.0.100:80 10.1.0.13:80 ESTABLISHED 900",
		"tcp 192.0.2.5:1005 10.9.0.100:80 10.1.0.13:80 NONE 61 sip abc@def",
		"tcp [2001:db8::100]:49152 [2001:db8::100]:80 [2001:db8:1::12]:8080 ESTABLISHED 899",
		"tcp [2001:db8::100]:49152 [2001:db8::100]:80 10.1.0.11:80 ESTABLISHED 899",
		"tcp 192.0.2.1:2001 10.9.200.180:443 10.1.0.11:443 SYN_RECV 53",
		"tcp 198.51.100.1:2001 10.9.0.101:443 10.1.0.12:443 SYN_RECV 53 sip abc",
		"sctp 192.0.2.1:80 10.9.0.101:80 10.1.0.11:80 NONE 53",
		"udp 192.0.2.1:69 10.9.0.101:69 10.1.0.11:80 UDP 53",
		"tcp [2001:db8::102]:49152 [2001:db8::101]:80 [2001:db8::102]:8080 ESTABLISHED 899",
		"ip 192.0.2.1:0 0.0.0.7:0 10.1.0.12:0 NONE 0",
		"ip 192.0.2.1:80 0.0.0.7:0 10.1.0.11:80 NONE 0",
	} {
		f := strings.Fields(c + " - -")
		left, _ := strconv.ParseUint(f[5], 10, 32)
		conn := api.Connection{Protocol: f[0], Client: netip.MustParseAddrPort(f[1]), Virtual: netip.MustParseAddrPort(f[2]),
			Server: netip.MustParseAddrPort(f[3]), State: f[4], ExpiresSeconds: uint32(left)}
		if f[6] != "-" {
			conn.PersistenceEngine, conn.PersistenceData = f[6], f[7]
		}
		m.conns = append(m.conns, conn)
	}
	// Recorded from ipvsadm reading the same entries as /proc/net/ip_vs_conn.
	want := `IPVS connection entries
pro expire state       source             virtual            destination        pe name          pe_data
TCP 00:53  SYN_RECV    198.51.100.1:2001  vip.example.test:https rs11.example.test:https
IP  00:00  NONE        198.51.100.1:0     0.0.0.7:0          rs11.example.test:0
UDP 60:00  UDP         192.0.2.5:1005     vip.example.test:domain 10.1.0.13:mdns
TCP 44640:00 ESTABLISHED 192.0.2.5:1005     vip.example.test:http 10.1.0.13:http
SCTP 15:00  ESTABLISHED 192.0.2.5:1005     vip.example.test:80 10.1.0.13:80
TCP 01:01  NONE        192.0.2.5:1005     vip.example.test:http 10.1.0.13:http   sip                abc@def
TCP 14:59  ESTABLISHED [vip6.example.test]:49152 [vip6.example.test]:http [2001:db8:1::12]:http-alt
TCP 14:59  ESTABLISHED [vip6.example.test]:49152 [vip6.example.test]:http rs11.example.test:http
TCP 00:53  SYN_RECV    client1.example.test:2001 10.9.200.180:https rs11.example.test:https
TCP 00:53  SYN_RECV    198.51.100.1:2001  a-very-long-virtual-server-name-number-12.datacenter.exampl a-very-long-real-server-name-number-12.datacenter.example.t sip                abc
SCTP 00:53  NONE        client1.example.test:80 a-very-long-virtual-server-name-number-12.datacenter.exampl rs11.example.test:80
UDP 00:53  UDP         client1.example.test:tftp a-very-long-virtual-server-name-number-12.datacenter.exampl rs11.example.test:80
TCP 14:59  ESTABLISHED [short6.example.test]:49152 [a-very-long-ipv6-server-name-number-12.datacenter.example. [short6.example.test]:http-alt
IP  00:00  NONE        client1.example.test:0 0.0.0.7:0          a-very-long-real-server-name-number-12.datacenter.example.t
IP  00:00  NONE        client1.example.test:80 0.0.0.7:0          rs11.example.test:80
`
	if out, _, _ := m.run(strings.Fields("-L -c --persistent-conn"), ""); out != want {
		t.Errorf("-L -c --persistent-conn prints\n%swant\n%s", out, want)
	}
	numeric, _, _ := m.run(strings.Fields("-L -c -n"), "")
	for _, line := range []string{
		"IP  00:00  NONE        198.51.100.1:0     0.0.0.7:0          10.1.0.11:0\n",
		"TCP 01:01  NONE        192.0.2.5:1005     10.9.0.100:80      10.1.0.13:80\n",
		"TCP 14:59  ESTABLISHED [2001:db8::100]:49152 [2001:db8::100]:80 10.1.0.11:80\n",
	} {
		if !strings.Contains(numeric, line) {
			t.Errorf("-L -c -n prints\n%swithout\n%s", numeric, line)
		}
	}
}
