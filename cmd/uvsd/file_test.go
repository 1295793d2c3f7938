package main

import (
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"uvs/dataplane"
	"uvs/dataplane/guard"
	"uvs/dataplane/link"
)

const hostFile = `
interfaces: [{name: eth0, mac: interface}, {name: eth1, gateways: [10.0.0.1/24, "2001:db8:1::1/64"]}]
probes: 192.0.2.50
inner: {policy: masquerade, addresses: 192.0.2.51}
packets: {link: simple, workers: 4, pin: true, announce: 0s}
limits: {connections: 1000}
log: {level: warn}
`

func TestTheFileSaysWhatFlagsDoNot(t *testing.T) {
	name := filepath.Join(t.TempDir(), "uvs.yaml")
	if err := os.WriteFile(name, []byte(hostFile), 0o644); err != nil {
		t.Fatal(err)
	}
	o, err := parseOptions([]string{"--config", name}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(o.interfaces, []string{"eth0", "eth1"}) || o.modeOf("eth0") != guard.InterfaceMAC || o.modeOf("eth1") != guard.Auto ||
		len(o.gateways) != 2 || o.gateways[0].iface != "eth1" || !slices.Equal(o.probes, []netip.Addr{netip.MustParseAddr("192.0.2.50")}) ||
		o.inner != dataplane.MasqueradeInnerTraffic || len(o.masquerade) != 1 || o.link != link.KindSimple || o.workers != 4 || !o.pin ||
		o.announce >= 0 || o.maxConnections != 1000 || o.logLevel != "warn" {
		t.Errorf("the file makes %+v", o)
	}
	o, err = parseOptions([]string{"--config", name, "--interface", "eth9,eth1", "--mac", "virtual", "--workers", "2", "--pin=false", "--announce-interval", "1m", "--log-level", "debug"}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if o.interfaces[0] != "eth9" || o.modeOf("eth1") != guard.Virtual || o.workers != 2 || o.pin || o.announce != time.Minute || o.logLevel != "debug" || len(o.gateways) != 2 {
		t.Errorf("flags beside the file make %+v", o)
	}
	if _, err := parseOptions([]string{"--interface", "eth0", "--config", name + ".not"}, io.Discard); err == nil {
		t.Error("a file that is named and isn't there is no mistake")
	}
	if o, err := parseOptions([]string{"--interface", "eth0", "--config", ""}, io.Discard); err != nil || o.file != nil {
		t.Errorf("without a file: %v", err)
	}
}

func TestCheckNamesAllMistakes(t *testing.T) {
	name := filepath.Join(t.TempDir(), "uvs.yaml")
	for text, want := range map[string]string{
		hostFile:                    "",
		"sevices: []\nwach: true\n": `wach"; did you mean "watch"?`,
	} {
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		o, err := parseOptions([]string{"--check", name}, io.Discard)
		if err != nil {
			t.Fatal(err)
		}
		var out strings.Builder
		err = checkFile(o.checkFile, &out)
		if want == "" && (err != nil || !strings.Contains(out.String(), "is sound")) || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("--check of %q: %v, %s", text, err, &out)
		}
	}
}
