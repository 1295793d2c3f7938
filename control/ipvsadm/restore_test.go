package ipvsadm

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"uvs/control/api"
)

// These tests have uvsd's own desired state behind the socket, not the kernel that main_test.go has.

func TestTenThousandRulesAreOneChangeOfTheDirector(t *testing.T) {
	d := newDirector()
	env := map[string]string{"UVS_SOCKET": serveKernel(t, d)}
	revision := func() uint64 {
		s, err := d.Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return s.Revision
	}
	rules := many(1000)
	before := revision()
	start := time.Now()
	if _, errs, exit := call(env, rules, "uvsadm", "-R"); exit != 0 || errs != "" {
		t.Fatalf("exit %d, %q", exit, errs)
	}
	t.Logf("uvsadm -R of %d rules: %v", strings.Count(rules, "\n"), time.Since(start))
	if n := revision() - before; n != 1 {
		t.Errorf("%d changes, want 1", n)
	}
	saved, _, _ := call(env, "", "uvsadm", "-S", "-n")
	if saved != rules {
		t.Errorf("-S prints %d lines, which are not the %d that -R read", strings.Count(saved, "\n"), strings.Count(rules, "\n"))
	}
	// All of it anew is one change too.
	before = revision()
	if _, errs, exit := call(env, saved, "ipvsadm-restore"); exit != 0 || errs != "" {
		t.Fatalf("exit %d, %q", exit, errs)
	}
	if again, _, _ := call(env, "", "ipvsadm-save", "-n"); again != saved || revision()-before != 1 {
		t.Errorf("restored once more: %d changes, the same rules: %v", revision()-before, again == saved)
	}
}

// TestTwoRestoresAtOnceNeverMixInTheDirector has many -R at once, each with rules that belong together. Who looks meanwhile, by
// the API or as packets do, never sees rules of two of them.
func TestTwoRestoresAtOnceNeverMixInTheDirector(t *testing.T) {
	d := newDirector()
	env := map[string]string{"UVS_SOCKET": serveKernel(t, d)}
	rules := func(writer int) string {
		var b strings.Builder
		b.WriteString("-C\n")
		for port := range 20 {
			fmt.Fprintf(&b, "-A -t 10.0.0.%d:%d -s wrr\n", writer, 80+port)
			for server := range 1 + writer {
				fmt.Fprintf(&b, "-a -t 10.0.0.%d:%d -r 10.1.0.%d -m -w %d\n", writer, 80+port, 1+server, writer)
			}
		}
		return b.String()
	}
	// whole says that the services are those of one writer, whose number is in their address.
	whole := func(list []api.Service) bool {
		for i := range list {
			s := &list[i]
			writer := int(s.Address.As4()[3])
			if len(list) != 20 || s.Address != list[0].Address || len(s.Servers) != 1+writer {
				return false
			}
			for _, r := range s.Servers {
				if r.Config.Weight != writer {
					return false
				}
			}
		}
		return true
	}
	ctx, cancel := context.WithCancel(t.Context())
	var readers, writers sync.WaitGroup
	readers.Go(func() {
		client := api.NewClient(env["UVS_SOCKET"])
		defer client.Close()
		for ctx.Err() == nil {
			list, err := client.Services(context.WithoutCancel(ctx), nil)
			if err != nil || !whole(list) {
				t.Errorf("between changes there are %d services, %v: %+v", len(list), err, list)
				return
			}
		}
	})
	readers.Go(func() {
		for ctx.Err() == nil {
			table := d.Table()
			for _, vs := range table.Services {
				vip := vs.Key.Addr.Addr()
				if len(table.Services) != 20 || vip != table.Services[0].Key.Addr.Addr() || len(vs.Servers) != 1+int(vip.As4()[3]) {
					t.Errorf("packets meet %d services, one of them %v with %d servers", len(table.Services), vs.Key, len(vs.Servers))
					return
				}
			}
		}
	})
	for writer := 1; writer <= 6; writer++ {
		writers.Go(func() {
			for range 10 {
				if _, errs, exit := call(env, rules(writer), "uvsadm", "-R"); exit != 0 || errs != "" {
					t.Errorf("-R: exit %d, %q", exit, errs)
				}
			}
		})
	}
	writers.Wait()
	cancel()
	readers.Wait()
}
