package conformance

import (
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

func readText(t testing.TB, file string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(texts, file))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// transcript is a command of a recorded file with all that belongs to it.
type transcript struct {
	program   string // empty for text that belongs to no command
	args      []string
	in        string
	out, errs string
	exit      int
	table     []string // lines that -S -n has more (+) or less (-) after it
}

// transcripts reads a recorded file: "$ command", "< input", output, "--- stderr", "--- exit N", "--- table".
func transcripts(t testing.TB, file string) (list []transcript) {
	t.Helper()
	part := ""
	for l := range strings.Lines(readText(t, file)) {
		text := strings.TrimSuffix(l, "\n")
		switch {
		case strings.HasPrefix(l, "$ "):
			fields := strings.Fields(l)[1:]
			list = append(list, transcript{program: fields[0], args: fields[1:]})
			part = "out"
			continue
		case len(list) == 0:
			if strings.HasPrefix(l, "#") || text == "" {
				continue
			}
			list, part = append(list, transcript{}), "out"
		}
		cur := &list[len(list)-1]
		switch {
		case text == "--- stderr", text == "--- table":
			part = strings.TrimPrefix(text, "--- ")
		case strings.HasPrefix(l, "--- exit "):
			n, err := strconv.Atoi(strings.TrimPrefix(text, "--- exit "))
			if err != nil {
				t.Fatalf("%s: %v", file, err)
			}
			cur.exit, part = n, ""
		case part == "out" && (l == "<\n" || strings.HasPrefix(l, "< ")):
			cur.in += strings.TrimPrefix(strings.TrimPrefix(l, "<"), " ")
		case part == "out":
			cur.out += l
		case part == "stderr":
			cur.errs += l
		case part == "table" && text != "":
			cur.table = append(cur.table, text)
		}
	}
	if len(list) == 0 {
		t.Fatalf("%s: nothing in it", file)
	}
	return list
}

// ordered sorts a listing's services, each with its servers in their order: the kernel's order of services is that of a hash
// table with a random key.
func ordered(listing string) string {
	services := strings.Split(strings.ReplaceAll(listing, "\n  -> ", "\x00"), "\n")
	slices.Sort(services)
	return strings.Join(services, "\n")
}

func sortedLines(s string) string {
	lines := strings.Split(s, "\n")
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// recordedNames are the names of the network that the recordings were made on.
type recordedNames struct{}

var (
	recordedHosts = map[string]string{
		"127.0.0.1": "localhost", "10.9.0.100": "vip.example.test", "2001:db8::100": "vip6.example.test",
		"10.1.0.11": "rs11.example.test", "192.0.2.1": "client1.example.test",
		"10.1.0.12": "a-very-long-real-server-name-number-12.datacenter.example.test",
	}
	recordedPorts = map[string]map[uint16]string{
		"tcp": {22: "ssh", 53: "domain", 80: "http", 88: "kerberos", 443: "https", 8080: "http-alt"},
		"udp": {53: "domain", 88: "kerberos", 5353: "mdns"},
	}
)

func (recordedNames) find(host string, is6 bool) (netip.Addr, bool) {
	for text, name := range recordedHosts {
		if a := netip.MustParseAddr(text); a.Is6() == is6 && strings.EqualFold(name, host) {
			return a, true
		}
	}
	return netip.Addr{}, false
}

// IPv4 implements ipvsadm.Names, as the methods below do.
func (n recordedNames) IPv4(host string) (netip.Addr, bool) { return n.find(host, false) }
func (n recordedNames) IPv6(host string) (netip.Addr, bool) { return n.find(host, true) }
func (recordedNames) Host(a netip.Addr) string              { return recordedHosts[a.String()] }

func (recordedNames) Port(name, proto string) (uint16, bool) {
	for port, n := range recordedPorts[proto] {
		if n == name {
			return port, true
		}
	}
	return 0, false
}

func (recordedNames) PortName(port uint16, proto string) string { return recordedPorts[proto][port] }
