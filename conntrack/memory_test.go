//go:build !race

package conntrack

import "testing"

func TestMemoryPerConnection(t *testing.T) {
	const n = 300_000
	for i, family := range families {
		_, _, bytes := filled(t, i, n)
		if each := bytes / n; each > family.bytes {
			t.Errorf("%d bytes for each of %d NAT connections of %s, want at most %d", each, n, family.name, family.bytes)
		}
	}
}
