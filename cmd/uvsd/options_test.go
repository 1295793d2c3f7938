package main

import (
	"io"
	"strings"
	"testing"
)

func TestWrongOptionsAreRefusedWithASentence(t *testing.T) {
	gateway := []string{"--interface", "eth0,eth1", "--gateway", "10.0.0.1/24@eth1"}
	for _, tt := range []struct {
		args []string
		want string // part of the error; empty: accepted
	}{
		{[]string{"--interface", "eth0"}, ""},
		{gateway, ""},
		{append(gateway[:4:4], "--inner-traffic", "masquerade", "--masquerade-address", "192.0.2.1"), ""},
		{nil, "--interface names no interface"},
		{[]string{"--interface", "eth0,,eth1"}, "empty interface name"},
		{[]string{"--interface", "eth0", "--interface", "eth0"}, "twice"},
		{[]string{"--interface", "eth0", "extra"}, `unexpected argument "extra"`},
		{[]string{"--interface", "eth0", "--workers", "0"}, "--workers 0"},
		{[]string{"--interface", "eth0", "--max-connections", "-1"}, "--max-connections -1"},
		{[]string{"--interface", "eth0", "--gateway", "10.0.0.1/24@eth1"}, "not attached to eth1"},
		{[]string{"--interface", "eth0", "--gateway", "10.0.0.0/24@eth0"}, "the segment's own address"},
		{[]string{"--interface", "eth0", "--gateway", "2001:db8::/64@eth0"}, "the segment's own address"},
		{append(gateway[:4:4], "--gateway", "2001:db8::1/64@eth1"), ""},
		{[]string{"--interface", "eth0", "--inner-traffic", "forward"}, "--gateway"},
		{append(gateway[:4:4], "--masquerade-address", "192.0.2.1"), "--inner-traffic masquerade"},
		{append(gateway[:4:4], "--inner-traffic", "masquerade", "--masquerade-address", "2001:db8::1"), ""},
		{append(gateway[:4:4], "--inner-traffic", "masquerade", "--masquerade-address", "2001:db8::1", "--masquerade-address", "192.0.2.1"), ""},
		{append(gateway[:4:4], "--inner-traffic", "masquerade", "--masquerade-address", "2001:db8::1", "--masquerade-address", "2001:db8::2"), "second of its family"},
		{append(gateway[:4:4], "--inner-traffic", "masquerade", "--masquerade-address", "fe80::1"), "others reach"},
		{append(gateway[:4:4], "--inner-traffic", "masquerade", "--masquerade-address", "224.0.0.1"), "not an address"},
		{append(gateway[:4:4], "--probe-address", "192.0.2.50", "--probe-address", "2001:db8::50"), ""},
		{append(gateway[:4:4], "--probe-address", "192.0.2.50", "--probe-address", "192.0.2.50"), "twice"},
		{append(gateway[:4:4], "--probe-address", "127.0.0.1"), "others reach"},
	} {
		_, err := parseOptions(tt.args, io.Discard)
		switch {
		case tt.want == "" && err != nil:
			t.Errorf("%v: %v", tt.args, err)
		case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
			t.Errorf("%v: error %v, want one about %q", tt.args, err, tt.want)
		}
	}
}
