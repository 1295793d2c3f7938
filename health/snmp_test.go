package health

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/gosnmp/gosnmp"
)

// startSNMP runs Debian's snmpd on a loopback port and returns the target that it is.
func startSNMP(t *testing.T) *Target {
	t.Helper()
	if _, err := exec.LookPath("snmpd"); err != nil {
		if out, err := exec.Command("../scripts/deps.sh", "snmpd").CombinedOutput(); err != nil {
			t.Fatalf("snmpd is not installed and cannot be: %v\n%s", err, out)
		}
	}
	dir := t.TempDir()
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := c.LocalAddr().String()
	c.Close()
	conf := filepath.Join(dir, "snmpd.conf")
	text := "rocommunity uvs\nrouser watcher\ncreateUser watcher SHA256 \"signed and sealed\" AES \"signed and sealed\"\n"
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("snmpd", "-f", "-Lo", "-C", "-c", conf, "-I", "-smux", "-p", filepath.Join(dir, "pid"), "udp:"+addr)
	cmd.Env = append(os.Environ(), "SNMP_PERSISTENT_DIR="+dir, "MIBS=")
	log := new(strings.Builder)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("snmpd: %s", log)
		}
	})
	to := at(addr)
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		said, err := prepared(t, &SNMP{Community: "uvs", Required: true}).Probe(ctx, to)
		cancel()
		if err == nil {
			return to
		}
		if time.Now().After(end) {
			t.Fatalf("snmpd doesn't answer: %q, %v", said, err)
		}
	}
}

func TestSNMP(t *testing.T) {
	to := startSNMP(t)
	for _, c := range []struct {
		what string
		p    *SNMP
		want string
	}{
		{"load", &SNMP{Community: "uvs"}, `^load \d+\.\d\d, processors \d+: gets \d+%$`},
		{"load of so many", &SNMP{Community: "uvs", CPUs: 1 << 20}, `^load \d+\.\d\d, processors 1048576: gets 100%$`},
		// net-snmp has no rows for processors before its first minute is over.
		{"processors", &SNMP{Community: "uvs", Measure: "cpu", Version: "1"}, `^processors \d+% busy: gets \d+%$|the server has no`},
		{"a column", &SNMP{Community: "uvs", Measure: "oid", OID: "1.3.6.1.2.1.2.2.1.4", Full: 1e9}, `^1.3.6.1.2.1.2.2.1.4 is [\d.]+: gets 100%$`},
		{"a column, version 1", &SNMP{Community: "uvs", Version: "1", Measure: "oid", OID: "1.3.6.1.2.1.2.2.1.4", Full: 1e9}, `^1.3.6.1.2.1.2.2.1.4 is [\d.]+: gets 100%$`},
		{"an object", &SNMP{Community: "uvs", Measure: "oid", OID: "1.3.6.1.2.1.25.1.6.0", Full: -1e9}, `^1.3.6.1.2.1.25.1.6.0 is \d+: gets 100%$`},
		{"version 3", &SNMP{Version: "3", User: "watcher", Auth: "sha256", AuthPassword: "signed and sealed", PrivPassword: "signed and sealed"}, `^load .*: gets \d+%$`},
		{"text", &SNMP{Community: "uvs", Measure: "oid", OID: ".1.3.6.1.2.1.1.1.0"}, `^no word by SNMP: \.1\.3\.6\.1\.2\.1\.1\.1\.0 is ".*", no number`},
		{"nothing there", &SNMP{Community: "uvs", Measure: "oid", OID: "1.3.6.1.2.1.1.99"}, `^no word by SNMP: the server has no 1.3.6.1.2.1.1.99$`},
	} {
		given := -1.0
		to.Weigh = func(f float64) { given = f }
		said, err := prepared(t, c.p).Probe(shortly(t), to)
		if err != nil || !regexp.MustCompile(c.want).MatchString(said) {
			t.Errorf("%s: %q, %v; want %s", c.what, said, err, c.want)
		}
		if strings.Contains(said, "gets") != (given > 0) {
			t.Errorf("%s: %q gives a share of %v", c.what, said, given)
		}
	}
}

// An agent that says nothing, or nonsense, ends in time and leaves the share.
func TestSNMPWithoutAnswer(t *testing.T) {
	for name, answer := range map[string][]byte{"silence": nil, "nonsense": []byte("\x30\x82\xff\xff garbage"), "cut": {0x30, 0x29, 2, 1, 1, 4}} {
		c, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		go func() {
			b := make([]byte, 2048)
			for {
				_, from, err := c.ReadFrom(b)
				if err != nil {
					return
				}
				if answer != nil {
					_, _ = c.WriteTo(answer, from)
				}
			}
		}()
		to := at(c.LocalAddr().String())
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		s := &SNMP{}
		said, err := prepared(t, s).Probe(ctx, to)
		if cancel(); err != nil || !strings.HasPrefix(said, "no word by SNMP: ") {
			t.Errorf("%s: %q, %v", name, said, err)
		}
		s.weigh(to, 0.5)
		ctx, cancel = context.WithTimeout(t.Context(), 300*time.Millisecond)
		said, err = s.Probe(ctx, to)
		if cancel(); err != nil || !strings.HasSuffix(said, "50% as before") {
			t.Errorf("%s: %q, %v", name, said, err)
		}
		s.Required = true
		ctx, cancel = context.WithTimeout(t.Context(), 300*time.Millisecond)
		said, err = s.Probe(ctx, to)
		if cancel(); err == nil {
			t.Errorf("%s: %q", name, said)
		}
	}
	to := &Target{Server: netip.MustParseAddrPort("192.0.2.1:161"), Dial: func(context.Context, string) (net.Conn, error) {
		return nil, errors.New("no route")
	}}
	wants(t, &SNMP{Required: true}, to, "down: no route")
}

func TestSNMPOptions(t *testing.T) {
	for want, s := range map[string]*SNMP{
		"version": {Version: "4"}, "auth": {Auth: "ROT13"}, "priv": {Priv: "none"}, "user": {Version: "3"}, "measure": {Measure: "mood"},
		"oid": {Measure: "oid", OID: "laLoad.1"}, "full": {Full: 5, Idle: 5}, "cpus": {CPUs: -1}, "privpassword": {Version: "3", User: "u", PrivPassword: "x"},
		"least": {Weighing: Weighing{Least: 200}},
	} {
		refuses(t, s, want)
	}
	refuses(t, &SNMP{OID: "1.2.3"}, "oid")
	refuses(t, &SNMP{Measure: "oid"}, "oid")
}

func TestNumber(t *testing.T) {
	for _, c := range []struct {
		value any
		want  float64
		ok    bool
	}{
		{[]byte(" 0.52\n"), 0.52, true}, {42, 42, true}, {uint64(1 << 40), 1 << 40, true}, {float32(0.5), 0.5, true}, {[]byte("NaN"), 0, false},
		{[]byte("linux"), 0, false}, {nil, 0, false}, {"1.3.6", 0, false}, {uint(7), 7, true},
	} {
		got, err := number(gosnmp.SnmpPDU{Name: ".1", Value: c.value})
		if (err == nil) != c.ok || err == nil && got != c.want {
			t.Errorf("number(%v) = %v, %v", c.value, got, err)
		}
	}
}
