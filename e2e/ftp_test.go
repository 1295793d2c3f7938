package e2e

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"uvs/lab"
)

// ftpServer runs vsftpd at an address of a real server, anonymous, with a file to get and a directory to put into, and
// returns its root.
func ftpServer(t *testing.T, host *lab.Host, addr netip.Addr, name string, size int64) (root string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "uvs-ftp-")
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	must(t, os.Chmod(dir, 0o755))
	root = filepath.Join(dir, "root")
	must(t, os.MkdirAll(filepath.Join(root, "in"), 0o755))
	must(t, os.Chmod(filepath.Join(root, "in"), 0o777))
	must(t, os.WriteFile(filepath.Join(root, "name"), []byte(name), 0o644))
	writeContent(t, filepath.Join(root, "body"), size)
	must(t, os.MkdirAll(filepath.Join(dir, "empty"), 0o755))
	conf := filepath.Join(dir, "vsftpd.conf")
	listen := "listen=YES\nlisten_ipv6=NO"
	if addr.Is6() {
		listen = "listen=NO\nlisten_ipv6=YES"
	}
	must(t, os.WriteFile(conf, fmt.Appendf(nil, `%s
background=NO
anonymous_enable=YES
no_anon_password=YES
anon_root=%s
anon_upload_enable=YES
write_enable=YES
anon_umask=022
local_enable=NO
connect_from_port_20=YES
seccomp_sandbox=NO
secure_chroot_dir=%s
idle_session_timeout=20
`, listen, root, filepath.Join(dir, "empty")), 0o644))
	cmd := host.Command(t.Context(), "vsftpd", conf)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	must(t, cmd.Start())
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		if t.Failed() {
			t.Logf("vsftpd on %s: %s", name, &out)
		}
	})
	eventually(t, "vsftpd answers on "+name, func() (bool, any) {
		conn, err := host.Dial("tcp", netip.AddrPortFrom(addr, 21).String())
		if err != nil {
			return false, err
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(time.Second))
		b := make([]byte, 3)
		_, err = conn.Read(b)
		return err == nil && string(b) == "220", err
	})
	return root
}

// ftpWay is a way to open data connections: what makes curl use it.
type ftpWay struct {
	name string
	args []string
}

// TestFTPThroughNAT gets, puts and lists with a real client and real servers, in all the ways that there are to open data
// connections.
func TestFTPThroughNAT(t *testing.T) {
	testFTP(t, false, []ftpWay{
		{"EPSV", nil},
		{"PASV", []string{"--disable-epsv", "--ftp-skip-pasv-ip"}},
		{"PASV, the address in the reply", []string{"--disable-epsv", "--no-ftp-skip-pasv-ip"}},
		{"EPRT", []string{"--ftp-port", "-"}},
		{"PORT", []string{"--ftp-port", "-", "--disable-eprt"}},
	})
}

// TestFTPThroughNATOverIPv6 is the same with the two ways that IPv6 has.
func TestFTPThroughNATOverIPv6(t *testing.T) {
	testFTP(t, true, []ftpWay{{"EPSV", nil}, {"EPRT", []string{"--ftp-port", "-"}}})
}

func testFTP(t *testing.T, six bool, ways []ftpWay) {
	needs(t, "vsftpd", "vsftpd")
	needs(t, "curl", "curl")
	const size = 8 << 20
	for _, offloadsOff := range []bool{false, true} {
		t.Run(fmt.Sprintf("offloads=%v", !offloadsOff), func(t *testing.T) {
			r := newRig(t, rigConfig{NAT: true, Six: six, Config: lab.Config{OffloadsOff: offloadsOff}})
			rules := []string{"-A -t " + r.at(21) + " -s rr"}
			var roots []string
			for i, h := range r.RealServers {
				roots = append(roots, ftpServer(t, h, r.addr(h), fmt.Sprintf("rs%d", i+1), size))
				rules = append(rules, fmt.Sprintf("-a -t %s -r %v -m", r.at(21), netip.AddrPortFrom(r.addr(h), 21)))
			}
			r.restore(rules...)
			body := filepath.Join(t.TempDir(), "body")
			writeContent(t, body, size)
			want, err := os.ReadFile(body)
			must(t, err)
			for _, way := range ways {
				t.Run(way.name, func(t *testing.T) {
					curl := func(args ...string) []byte {
						t.Helper()
						args = append(append([]string{"--silent", "--show-error", "--max-time", "30"}, way.args...), args...)
						cmd := r.Clients[0].Command(t.Context(), "curl", args...)
						var stdout, stderr bytes.Buffer
						cmd.Stdout, cmd.Stderr = &stdout, &stderr
						if err := cmd.Run(); err != nil {
							t.Fatalf("curl %s: %v: %s", strings.Join(args, " "), err, &stderr)
						}
						return stdout.Bytes()
					}
					url := strings.Replace(r.url(), "http:", "ftp:", 1) + "/"
					names := map[string]int{}
					for range 2 * len(r.RealServers) {
						names[string(curl(url+"name"))]++
					}
					if len(names) != len(r.RealServers) {
						t.Errorf("names %v, want one of each server", names)
					}
					if got := curl(url + "body"); !bytes.Equal(got, want) {
						t.Errorf("%d bytes, want the %d of the file", len(got), len(want))
					}
					if got := string(curl(url)); !strings.Contains(got, "body") || !strings.Contains(got, "name") {
						t.Errorf("listing %q", got)
					}
					// Several transfers on one control connection.
					if got := string(curl(url+"name", url+"name", url+"name")); len(got) != 9 {
						t.Errorf("three names: %q", got)
					}
					file := strings.ReplaceAll(way.name, " ", "") + ".put"
					curl("--upload-file", body, url+"in/"+file)
					found := 0
					for _, root := range roots {
						if got, err := os.ReadFile(filepath.Join(root, "in", file)); err == nil {
							found++
							if !bytes.Equal(got, want) {
								t.Errorf("put: %d bytes, want %d", len(got), len(want))
							}
						}
					}
					if found != 1 {
						t.Errorf("put arrived %d times, want once", found)
					}
				})
			}
			if n := r.status().drops("ftp"); n != 0 {
				t.Errorf("%d replies dropped", n)
			}
		})
	}
}
