package e2e

import (
	"bytes"
	"compress/gzip"
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
)

// With --pprof the control socket has Go's profiles, and the API as ever; without it there is nothing there.
func TestProfilesAreServedWhenAskedFor(t *testing.T) {
	for _, asked := range []bool{true, false} {
		cfg := rigConfig{}
		if asked {
			cfg.Args = []string{"--pprof"}
		}
		r := newRig(t, cfg)
		r.count(2)
		status, body := r.get("/debug/pprof/goroutine")
		switch {
		case !asked:
			if status != http.StatusNotFound {
				t.Errorf("without --pprof a profile is answered with %d: %s", status, body)
			}
		case status != http.StatusOK || !bytes.Contains(unzipped(t, body), []byte("uvs/dataplane.(*worker).run")):
			t.Errorf("a profile is answered with %d, and names no function of the packet path", status)
		default:
			if _, index := r.get("/debug/pprof/"); !strings.Contains(string(index), "goroutine") {
				t.Errorf("the index is %s", index)
			}
			if status, body = r.get("/debug/pprof/profile?seconds=1"); status != http.StatusOK || len(unzipped(t, body)) == 0 {
				t.Errorf("a profile of the CPU is answered with %d and %d bytes", status, len(body))
			}
		}
		r.count(2)
		r.adm("-L", "-n")
	}
}

// get asks the control socket for a path.
func (d *director) get(path string) (status int, body []byte) {
	d.t.Helper()
	client := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", d.socket)
	}}}
	defer client.CloseIdleConnections()
	req, err := http.NewRequestWithContext(shortly(d.t), http.MethodGet, "http://uvsd"+path, nil)
	must(d.t, err)
	resp, err := client.Do(req)
	must(d.t, err)
	defer resp.Body.Close()
	body, err = io.ReadAll(resp.Body)
	must(d.t, err)
	return resp.StatusCode, body
}

func unzipped(t *testing.T, b []byte) []byte {
	t.Helper()
	z, err := gzip.NewReader(bytes.NewReader(b))
	must(t, err)
	b, err = io.ReadAll(z)
	must(t, err)
	return b
}
