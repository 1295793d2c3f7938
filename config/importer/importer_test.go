package importer

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"uvs/config"
)

// fakeNames are the few names that samples have.
type fakeNames struct{}

func (fakeNames) IPv4(host string) (netip.Addr, bool) {
	a, ok := map[string]string{"sql01": "10.2.0.1", "sql03": "10.2.0.3", "ns2.example.com": "10.0.0.12"}[host]
	if !ok {
		return netip.Addr{}, false
	}
	return netip.MustParseAddr(a), true
}

func (fakeNames) IPv6(string) (netip.Addr, bool) { return netip.Addr{}, false }
func (fakeNames) Host(netip.Addr) string         { return "" }
func (fakeNames) PortName(uint16, string) string { return "" }
func (fakeNames) Port(name, proto string) (uint16, bool) {
	p, ok := map[string]uint16{"http": 80, "https": 443, "domain": 53}[name]
	return p, ok
}

// samples are the files that were written for these tests: together they have every directive.
func samples(t *testing.T) (list []string) {
	t.Helper()
	all, err := filepath.Glob("testdata/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range all {
		if info, err := os.Stat(p); err == nil && info.Mode().IsRegular() && filepath.Ext(p) != ".yaml" && filepath.Ext(p) != ".report" {
			list = append(list, p)
		}
	}
	if len(list) < 7 {
		t.Fatalf("only %q", list)
	}
	return list
}

func imported(t *testing.T, path string) *Result {
	t.Helper()
	r, err := Import(path, Options{ConfigID: "low", Names: fakeNames{}})
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return r
}

// check is Check, but for files that aren't on this machine.
func (r *Result) check() error {
	err := r.Check()
	if list := (config.Errors)(nil); errors.As(err, &list) {
		list = slices.DeleteFunc(list, func(e *config.Error) bool { return elsewhere(e) })
		if err = nil; len(list) > 0 {
			err = list
		}
	}
	return err
}

func TestSamplesPassTheCheck(t *testing.T) {
	for _, path := range samples(t) {
		r := imported(t, path)
		if err := r.check(); err != nil {
			t.Errorf("%s: %v", path, err)
		}
	}
}

// Every directive of the samples was understood: none came to the net that catches what no mapper graded.
func TestEveryDirectiveHasItsMapper(t *testing.T) {
	for _, path := range samples(t) {
		r := imported(t, path)
		for _, i := range r.Report.Items {
			if strings.Contains(i.Note, "not understood") || i.Grade == ungraded {
				t.Errorf("%s:%d: %s: %s", i.File, i.Line, i.Directive, i.Note)
			}
			if strings.HasPrefix(i.Note, "no keyword") && !strings.HasPrefix(i.Name, "invented") && i.Name != "}" {
				t.Errorf("%s:%d: %s: %s", i.File, i.Line, i.Directive, i.Note)
			}
		}
	}
}

// everyLine checks that each line of a file that says something is in the report.
func everyLine(t *testing.T, path string, r *Result) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	named := map[int]bool{}
	for _, i := range r.Report.Items {
		named[i.Line] = named[i.Line] || i.File == path
	}
	number := 0
	for line := range strings.Lines(string(text)) {
		number++
		s := line
		if r.Kind == Keepalived {
			s = uncomment(line)
		}
		if s = strings.Trim(s, "{} \t\r\n\\"); s != "" && s[0] != '#' && !named[number] {
			t.Errorf("%s:%d: the report says nothing of %q", path, number, strings.TrimSpace(line))
		}
	}
}

func TestEveryLineIsInTheReport(t *testing.T) {
	for _, path := range samples(t) {
		everyLine(t, path, imported(t, path))
	}
}

// The samples have every keyword that the importers know.
func TestSamplesHaveEveryKeyword(t *testing.T) {
	have := map[Kind]map[string]bool{}
	for _, path := range samples(t) {
		r := imported(t, path)
		if have[r.Kind] == nil {
			have[r.Kind] = map[string]bool{}
		}
		for _, i := range r.Report.Items {
			have[r.Kind][i.Name] = true
		}
	}
	for kind, words := range map[Kind][]string{
		Ldirectord: slices.Concat(ldGlobals, ldVirtuals),
		Piranha:    slices.Concat(lvsGlobals, lvsVirtuals, []string{"virtual", "server", "failover", "weight"}),
		Keepalived: slices.Concat(kaKnown, []string{"SSL", "track_file", "virtual_server_group", "virtual_server", "real_server", "HTTP_GET", "SSL_GET", "TCP_CHECK",
			"SMTP_CHECK", "DNS_CHECK", "MISC_CHECK", "UDP_CHECK", "PING_CHECK", "FILE_CHECK", "BFD_CHECK", "url", "path", "digest", "status_code", "virtualhost", "regex",
			"regex_no_match", "regex_options", "regex_stack", "regex_min_offset", "regex_max_offset", "http_protocol", "fast_recovery", "enable_sni", "connect_ip",
			"connect_port", "bindto", "bind_if", "bind_port", "fwmark", "connect_timeout", "retry", "delay_before_retry", "warmup", "delay_loop", "alpha", "log_all_failures",
			"helo_name", "host", "type", "name", "misc_path", "misc_timeout", "misc_dynamic", "user", "payload", "require_reply", "min_reply_length", "max_reply_length",
			"dynamic", "ops", "hashed", "flag-1", "sh-port", "sh-fallback", "mh-port", "mh-fallback", "ha_suspend", "smtp_alert", "snmp_name", "omega", "sorry_server_inhibit",
			"vrrp_instance", "vrrp_sync_group", "vrrp_script", "vrrp_track_process", "bfd_instance", "garp_group", "static_ipaddress", "static_routes", "static_rules",
			"lvs_timeouts", "lvs_sync_daemon", "password", "ca", "certificate", "key"}),
	} {
		for _, w := range words {
			if !have[kind][w] {
				t.Errorf("no sample of %s has %s", kind, w)
			}
		}
	}
}
