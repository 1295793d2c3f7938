package e2e

import (
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"uvs/lab"
)

// curlBytes is how much curl moves each way.
const curlBytes = 24 << 20

// TestCurlThroughDirector is the main job with the program that everybody has, in every combination of how the director
// is attached: what curl gets is right, and the director's own stack stays silent.
func TestCurlThroughDirector(t *testing.T) {
	needs(t, "curl", "curl")
	body := filepath.Join(t.TempDir(), "body")
	writeContent(t, body, curlBytes)
	for _, link := range []string{"ring", "simple"} {
		for _, nat := range []bool{false, true} {
			for _, offloadsOff := range []bool{false, true} {
				for _, mac := range []string{"virtual", "interface"} {
					for _, forward := range []bool{false, true} {
						if link == "simple" && forward != (mac == "interface") {
							continue // its part in these is none: two of the four will do
						}
						name := fmt.Sprintf("%s/nat=%v/offloads=%v/mac=%s/ip_forward=%v", link, nat, !offloadsOff, mac, forward)
						t.Run(name, func(t *testing.T) {
							r := newRig(t, rigConfig{
								Config: lab.Config{OffloadsOff: offloadsOff, IPForward: forward},
								NAT:    nat, Args: []string{"--link", link, "--mac", mac},
							})
							r.checkAttached(link, mac)
							r.checkCurl(body)
						})
					}
				}
			}
		}
	}
}

// TestCurlOverIPv6 is the same over IPv6: what of the combinations could be different.
func TestCurlOverIPv6(t *testing.T) {
	needs(t, "curl", "curl")
	body := filepath.Join(t.TempDir(), "body")
	writeContent(t, body, curlBytes)
	for _, nat := range []bool{false, true} {
		for _, mac := range []string{"virtual", "interface"} {
			for _, forward := range []bool{false, true} {
				offloadsOff := forward == (mac == "interface") // each with one of the two
				link := map[bool]string{false: "ring", true: "simple"}[mac == "interface" && !forward]
				name := fmt.Sprintf("%s/nat=%v/offloads=%v/mac=%s/forwarding=%v", link, nat, !offloadsOff, mac, forward)
				t.Run(name, func(t *testing.T) {
					r := newRig(t, rigConfig{
						Config: lab.Config{OffloadsOff: offloadsOff, IPForward: forward}, Six: true,
						NAT: nat, Args: []string{"--link", link, "--mac", mac},
					})
					r.checkAttached(link, mac)
					r.checkCurl(body)
				})
			}
		}
	}
}

// checkAttached fails the test if the director isn't attached as it was told.
func (r *rig) checkAttached(link, mac string) {
	r.t.Helper()
	for _, i := range r.status().Interfaces {
		if i.Link != link || i.Mode != mac || !i.Offloads {
			r.t.Errorf("attached as %+v, want link %s, mode %s, offloads", i, link, mac)
		}
		own := r.Directors[0].Legs[0].MAC.String()
		if i.Name == "eth1" {
			own = r.Directors[0].Legs[1].MAC.String()
		}
		if (i.MAC == own) != (mac == "interface") {
			r.t.Errorf("%s has the MAC address %s in mode %s; the interface's is %s", i.Name, i.MAC, mac, own)
		}
	}
}

// checkCurl asks each real server by curl, moves a lot both ways, and looks at all that the director sent meanwhile.
func (r *rig) checkCurl(body string) {
	r.t.Helper()
	stop := r.captureDirector()
	got := lab.Tally{}
	for range 2 * len(r.RealServers) {
		got[strings.TrimSpace(string(r.curl(nil, r.url()+"/")))]++
	}
	for i := range r.RealServers {
		if name := fmt.Sprintf("rs%d", i+1); got[name] != 2 {
			r.t.Errorf("%s answered %d of the requests, want 2: %v", name, got[name], got)
		}
	}
	want := lab.ContentSHA256(0, curlBytes)
	h := sha256.New()
	r.curl(h, fmt.Sprintf("%s/bytes?n=%d", r.url(), curlBytes))
	if [sha256.Size]byte(h.Sum(nil)) != want {
		r.t.Errorf("the download has SHA-256 %x, want %x", h.Sum(nil), want)
	}
	if answer := string(r.curl(nil, "--data-binary", "@"+body, r.url()+"/upload")); answer != fmt.Sprintf("%x %d\n", want, curlBytes) {
		r.t.Errorf("the server has got an upload of %q, want %x and %d bytes", answer, want, curlBytes)
	}
	r.checkHostSilent(stop())
}

// curl runs curl on client1, which must succeed, and returns what it prints unless that goes to w.
func (r *rig) curl(w io.Writer, args ...string) []byte {
	r.t.Helper()
	var stderr strings.Builder
	cmd := r.Clients[0].Command(shortly(r.t), "curl", append([]string{"-sS", "--max-time", "15"}, args...)...)
	cmd.Stderr = &stderr
	var out []byte
	var err error
	if w == nil {
		out, err = cmd.Output()
	} else {
		cmd.Stdout = w
		err = cmd.Run()
	}
	if err != nil {
		r.t.Fatalf("curl %v: %v: %s", args, err, stderr.String())
	}
	return out
}

// writeContent writes a file of the content whose checksum the lab knows.
func writeContent(t testing.TB, path string, n int64) {
	t.Helper()
	f, err := os.Create(path)
	must(t, err)
	_, err = io.CopyN(f, lab.Content(0), n)
	must(t, err)
	must(t, f.Close())
}
