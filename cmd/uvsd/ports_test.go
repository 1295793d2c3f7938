package main

import (
	"net/netip"
	"testing"
)

func TestAddressesOfUVSDAreNoRealServers(t *testing.T) {
	o, err := parseOptions([]string{"--interface", "eth0,eth1", "--gateway", "10.0.0.1/24@eth1", "--inner-traffic", "masquerade",
		"--masquerade-address", "192.0.2.50"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	d := &daemon{o: o}
	for _, a := range []string{"10.0.0.1", "192.0.2.50", "127.0.0.1"} {
		if !d.isLocal(netip.MustParseAddr(a)) {
			t.Errorf("isLocal(%s) = false", a)
		}
	}
}
