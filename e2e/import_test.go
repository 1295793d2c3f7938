package e2e

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"uvs/lab"
)

// oldFiles are one and the same director, told to the programs that uvs takes the place of: web servers that are checked by a
// connection, and the echo service.
func oldFiles(r *rig) map[string]string {
	fill := strings.NewReplacer("VIP", r.VIP().String(), "RS1", r.addr(r.RealServers[0]).String(), "RS2", r.addr(r.RealServers[1]).String())
	files := map[string]string{
		"keepalived.conf": `global_defs {
    router_id lab
}
$SERVERS= \
    real_server RS1 ${PORT} { \
        $CHECK \
    } \
    real_server RS2 ${PORT} { \
        weight 3 \
        $CHECK \
    }
$CHECK= \
    TCP_CHECK { \
        connect_timeout 1 \
    }
$PORT=80
virtual_server VIP 80 {
    delay_loop 1
    lb_algo wrr
    lb_kind DR
    protocol TCP
    $SERVERS
}
$PORT=53
$CHECK= \
    PING_CHECK { \
    }
virtual_server VIP 53 {
    delay_loop 1
    lb_algo rr
    lb_kind DR
    protocol UDP
    $SERVERS
}
`,
		"ldirectord.cf": `checkinterval=1
checktimeout=1
virtual=VIP:80
	real=RS1:80 gate
	real=RS2:80 gate 3
	scheduler=wrr
	checktype=connect
virtual=VIP:53
	real=RS1:53 gate
	real=RS2:53 gate 3
	scheduler=rr
	checktype=on
`,
		"lvs.cf": `serial_no = 7
primary = VIP
service = lvs
network = direct
`,
		"rules": `-A -t VIP:80 -s wrr
-a -t VIP:80 -r RS1:80 -g -w 1
-a -t VIP:80 -r RS2:80 -g -w 3
-A -u VIP:53 -s rr
-a -u VIP:53 -r RS1:53 -g -w 1
-a -u VIP:53 -r RS2:53 -g -w 3
`,
	}
	for _, s := range []string{"web 80 tcp wrr", "echo 53 udp rr"} {
		w := strings.Fields(s)
		files["lvs.cf"] += fmt.Sprintf(`virtual %s {
     active = 1
     address = VIP eth0:1
     port = %s
     protocol = %s
     scheduler = %s
     timeout = 1
     reentry = 1
     server one {
         address = RS1
         active = 1
     }
     server two {
         address = RS2
         active = 1
         weight = 3
     }
}
`, w[0], w[1], w[2], w[3])
	}
	for name, text := range files {
		files[name] = fill.Replace(text)
	}
	return files
}

// Four files of other programs' that mean one director become four files of uvsd's that mean it: it accepts them, serves, and
// keeps clients from a server that is gone.
func TestImportedFilesServe(t *testing.T) {
	dir := t.TempDir()
	imported := func(name, text string) string {
		t.Helper()
		from, to := filepath.Join(dir, name), filepath.Join(dir, name+".yaml")
		must(t, os.WriteFile(from, []byte(text), 0o644))
		out, err := exec.Command(program("uvsadm"), "import", "-o", to, from).CombinedOutput()
		if err != nil {
			t.Fatalf("uvsadm import %s: %v\n%s", name, err, out)
		}
		if out, err := exec.Command(program("uvsd"), "--check", to).CombinedOutput(); err != nil {
			t.Errorf("uvsd --check of the imported %s: %v\n%s", name, err, out)
		}
		return to
	}
	file := filepath.Join(dir, "uvs.yaml")
	var files map[string]string
	r := newRig(t, rigConfig{Bare: true, Args: []string{"--config", file, "--state-dir", filepath.Join(dir, "state")}, Before: func(r *rig) {
		files = oldFiles(r)
		must(t, os.Rename(imported("keepalived.conf", files["keepalived.conf"]), file))
	}})
	want := files["rules"]
	for _, name := range []string{"keepalived.conf", "ldirectord.cf", "lvs.cf", "rules"} {
		if name != "keepalived.conf" {
			must(t, os.Rename(imported(name, files[name]), file))
			r.adm("reload")
		}
		if got := inOrder(r.adm("-S", "-n")); got != inOrder(want) {
			t.Errorf("%s makes the table\n%swant\n%s", name, got, want)
		}
		eventually(t, name+"'s web service serves by the weights", func() (bool, any) {
			tally := r.count(8)
			return tally["rs1"] == 2 && tally["rs2"] == 6, tally
		})
		if name != "keepalived.conf" {
			continue
		}
		must(t, r.web[0].Close())
		eventually(t, "the server that is gone gets no clients", func() (bool, any) {
			list := r.adm("-L", "-n", "-t", r.webService())
			return !strings.Contains(list, r.webServer(1)), list
		})
		server, err := lab.ServeHTTP(r.RealServers[0].Namespace, r.RealServers[0].Name(), netip.AddrPortFrom(r.VIP(), 80), netip.AddrPortFrom(r.addr(r.RealServers[0]), 80))
		must(t, err)
		r.web[0] = server
		eventually(t, "the server is back", func() (bool, any) {
			list := r.adm("-L", "-n", "-t", r.webService())
			return strings.Contains(list, r.webServer(1)), list
		})
	}
}

// inOrder has the lines of a text in alphabetical order.
func inOrder(s string) string {
	return strings.Join(slices.Sorted(strings.Lines(s)), "")
}
