package ipvsadm

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"uvs/control/api"
)

func TestAddressesInDotsAreReadAsInetAtonDoes(t *testing.T) {
	for in, want := range map[string]string{
		"10.9.0.100": "10.9.0.100", "10.9": "10.0.0.9", "10": "0.0.0.10", "1.2.65535": "1.2.255.255", "168427620": "10.10.0.100",
		"0x0a090064": "10.9.0.100", "0xA.9.0.100": "10.9.0.100", "012.9.0.100": "10.9.0.100", "0": "0.0.0.0", "4294967295": "255.255.255.255",
		"10.1.0.12 x": "10.1.0.12", "10.1.0.12\t": "10.1.0.12", "00.0.0.0": "0.0.0.0",
		"": "", " 1.2.3.4": "", "1.2.3.4.5": "", "1.2.3.256": "", "256.1.1.1": "", "1.2.65536": "", "1.16777216": "", "4294967296": "",
		"08.1.1.1": "", "1..1.1": "", "1.1.1.": "", ".1.1.1": "", "0x": "", "0x.1": "", "+1": "", "-1": "", "1.1.1.0x1g": "", "1_0": "",
	} {
		got, ok := dotted(in)
		if ok != (want != "") || ok && got.String() != want {
			t.Errorf("dotted(%q) = %v, %v; want %q", in, got, ok, want)
		}
	}
}

// FuzzCommandLine holds that no command line makes the parser fail other than in its known ways, that what it accepts is
// well formed for the API unless an address is IPv4 in IPv6's clothes, and that the table stays readable for -R.
func FuzzCommandLine(f *testing.F) {
	for _, r := range readRecordings(f) {
		if !r.Then && len(r.Cmd) > 0 {
			f.Add(strings.Join(r.Cmd, "\x00"))
		}
	}
	f.Add("-A\x00-t\x00[2001:db8::1]:80\x00-p\x00-M\x0064")
	f.Add("-A\x00-f\x004294967295\x00-6")
	l := &lookup{hosts{}}
	f.Fuzz(func(t *testing.T, line string) {
		req, err := parse(strings.Split(line, "\x00"), l, false)
		if err != nil {
			if !errors.Is(err, errTryHelp) && !errors.As(err, new(*failure)) && !errors.As(err, new(*usageError)) {
				t.Fatalf("%q: %v is no way to fail", line, err)
			}
			return
		}
		op := req.op()
		if op == nil {
			return
		}
		mapped := op.Service != nil && op.Service.Address.Is4In6() || op.Server != nil && op.Server.Address.Is4In6() ||
			op.Daemon != nil && strings.Contains(op.Daemon.Group, ".") && strings.Contains(op.Daemon.Group, ":")
		if err := op.Check(); err != nil && !mapped {
			t.Fatalf("%q becomes an operation that the API refuses: %v", line, err)
		}
		if op.Kind != api.AddService || mapped {
			return
		}
		m := newMachine()
		if m.kernel.apply(op) != "" {
			return
		}
		saved, _, _ := m.run([]string{"-S", "-n"}, "")
		m.kernel.services = nil
		if _, errs, exit := m.run([]string{"-R"}, saved); exit != 0 || errs != "" {
			t.Fatalf("%q is saved as %q, which -R refuses: %s", line, saved, errs)
		}
		if again, _, _ := m.run([]string{"-S", "-n"}, ""); again != saved {
			t.Fatalf("%q is saved as %q, then as %q", line, saved, again)
		}
	})
}

func TestSystemNamesReadTheServicesFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "services")
	if err := os.WriteFile(file, []byte(`# Network services
ssh		22/tcp
domain		53/tcp
domain		53/udp
tftp		69/udp		# with a remark
http		80/tcp		www		# WorldWideWeb
web		80/tcp
wrong
worse		x/tcp
worst		70000/tcp
`), 0o600); err != nil {
		t.Fatal(err)
	}
	s := SystemNames{services: file}
	for _, row := range []struct {
		name, proto string
		port        uint16
	}{
		{"http", "tcp", 80}, {"www", "tcp", 80}, {"web", "tcp", 80}, {"domain", "udp", 53}, {"tftp", "udp", 69},
		{"tftp", "tcp", 0}, {"80/tcp", "tcp", 0}, {"HTTP", "tcp", 0}, {"wrong", "tcp", 0}, {"worse", "tcp", 0}, {"worst", "tcp", 0},
		{"http", "", 0}, {"with", "udp", 0}, {"", "tcp", 0},
	} {
		if p, ok := s.Port(row.name, row.proto); p != row.port || ok != (row.port != 0) {
			t.Errorf("%s/%s = %d, %v; want %d", row.name, row.proto, p, ok, row.port)
		}
	}
	for port, want := range map[uint16]string{22: "ssh", 80: "http", 69: "", 4464: ""} {
		if got := s.PortName(port, "tcp"); got != want {
			t.Errorf("%d/tcp is %q, want %q", port, got, want)
		}
	}
	gone := SystemNames{services: file + ".gone"}
	if p, ok := gone.Port("http", "tcp"); ok || gone.PortName(80, "tcp") != "" {
		t.Errorf("http is %d without a file", p)
	}
}

func TestSystemNamesAskTheResolver(t *testing.T) {
	var s SystemNames
	if a, ok := s.IPv4("localhost"); !ok || !a.IsLoopback() || !a.Is4() {
		t.Errorf("localhost = %v, %v", a, ok)
	}
	if a, ok := s.IPv4(""); ok {
		t.Errorf("a host without name is %v", a)
	}
	if got := s.Host(netip.AddrFrom4([4]byte{127, 0, 0, 1})); got == "" {
		t.Error("127.0.0.1 has no name")
	}
}
