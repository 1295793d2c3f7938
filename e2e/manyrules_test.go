package e2e

import (
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"uvs/lab"
)

// manyRules are ten thousand lines: a thousand services on two hundred virtual addresses, with nine real servers each, all of
// one weight. No such server exists.
func manyRules(weight int) string {
	var b strings.Builder
	for i := range 1000 {
		vip := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 9, 1, byte(i % 200)}), uint16(1000+i/200))
		fmt.Fprintf(&b, "-A -t %v -s wrr\n", vip)
		for j := range 9 {
			fmt.Fprintf(&b, "-a -t %v -r 10.9.%d.%d:%d -g -w %d\n", vip, 2+i/200, 1+j, vip.Port(), weight)
		}
	}
	return b.String()
}

// TestTenThousandRules is -R of that many in a running director, in one change, under traffic which does not notice; and two of
// them at once, after which all rules are of one.
func TestTenThousandRules(t *testing.T) {
	r := newRig(t, rigConfig{})
	service := strings.Join(r.rules(r.VIP(), "rr"), "\n") + "\n"
	load := lab.StartHTTPLoad(t.Context(), r.client(), r.url()+"/", 2, 20*time.Second)
	restore := func(weight int) {
		if _, err := r.tryAdm("-C\n"+service+manyRules(weight), "-R"); err != nil {
			t.Error(err)
		}
	}
	before := r.revision()
	start := time.Now()
	restore(7)
	t.Logf("uvsadm -R of 10000 rules took %v", time.Since(start))
	if n := r.revision() - before; n != 1 {
		t.Errorf("%d changes, want 1", n)
	}
	if saved := r.adm("-S", "-n"); strings.Count(saved, " -w 7\n") != 9000 {
		t.Errorf("-S prints %d lines, %d of them with the weight asked for", strings.Count(saved, "\n"), strings.Count(saved, " -w 7\n"))
	}
	for range 3 {
		var both sync.WaitGroup
		for _, weight := range []int{8, 9} {
			both.Go(func() { restore(weight) })
		}
		both.Wait()
		saved := r.adm("-S", "-n")
		if a, b := strings.Count(saved, " -w 8\n"), strings.Count(saved, " -w 9\n"); a+b != 9000 || a*b != 0 {
			t.Errorf("after two at once %d servers have the rules of one, %d of the other", a, b)
		}
	}
	if tally, errs := load.Stop(); len(errs) > 0 || tally["rs1"] == 0 || tally["rs2"] == 0 {
		t.Errorf("requests meanwhile: %v, errors: %v", tally, errs)
	}
}
