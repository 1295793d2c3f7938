package e2e

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"uvs/lab"
)

// After a crash the next uvsd takes over what was left of the last one, and takes it away when it stops.
func TestRestartAfterCrash(t *testing.T) {
	for _, kind := range []lab.LinkKind{lab.Veth, lab.BridgeMaster} {
		for _, mac := range []string{"virtual", "interface"} {
			t.Run(fmt.Sprintf("%v/%s", kind, mac), func(t *testing.T) {
				run := modes
				if kind == lab.Veth {
					run = families
				}
				run(t, func(t *testing.T, cfg rigConfig) {
					cfg.DirectorLink, cfg.Args, cfg.VIPs = kind, []string{"--mac", mac}, 2
					r := newRig(t, cfg)
					r.restore(r.rules(r.vips()[1], "rr")...)
					r.count(2)
					r.awaitQuiet() // a connection's last segments would be refused, of which the next uvsd knows nothing
					r.kill()
					if left := r.before.difference(stateOf(t, r.Directors[0])); mac == "interface" && len(left) == 0 {
						t.Error("a crash left nothing behind: this test doesn't see what uvsd installs")
					}
					r.start()
					r.restore(r.rules(r.VIP(), "rr")...)
					eventually(t, "of what only the last uvsd served nothing is on the host", func() (bool, any) {
						for _, line := range stateOf(t, r.Directors[0]) {
							if strings.Contains(line, r.vips()[1].String()) {
								return false, line
							}
						}
						return true, nil
					})
					stop := r.captureDirector()
					r.count(4)
					r.checkHostSilent(stop())
					// The end of the test checks that nothing of both is left.
				})
			})
		}
	}
}

// Stopping in the midst of traffic is clean, too.
func TestStopUnderLoad(t *testing.T) {
	modes(t, func(t *testing.T, cfg rigConfig) {
		cfg.Race, cfg.Args = true, []string{"--workers", "2"}
		r := newRig(t, cfg)
		load := lab.StartHTTPLoad(t.Context(), r.client(), r.url()+"/", 4, 300*time.Millisecond)
		time.Sleep(300 * time.Millisecond)
		r.stop()
		if tally, _ := load.Stop(); tally.Total() == 0 {
			t.Error("there was no load")
		}
	})
}

// What uvsd needs and doesn't find it names in a line, and it doesn't start.
func TestStartIsRefusedInALine(t *testing.T) {
	topo := lab.NAT(t, lab.Config{})
	host := topo.Directors[0]
	for _, c := range []struct {
		name string
		args []string
		want []string
	}{
		{"no interface", nil, []string{"--interface"}},
		{"missing interface", []string{"--interface", "nosuch0"}, []string{"nosuch0"}},
		{"loopback", []string{"--interface", "lo"}, []string{"lo"}},
		{"gateway elsewhere", []string{"--interface", "eth0", "--gateway", "10.1.0.254/24@eth1"}, []string{"eth1"}},
		{"wrong flag", []string{"--interface", "eth0", "--nonsense"}, []string{"nonsense"}},
		{"wrong link", []string{"--interface", "eth0", "--link", "warp"}, []string{"-link", "warp"}},
		{"wrong gateway", []string{"--interface", "eth1", "--gateway", "10.1.0.254"}, []string{"10.1.0.254"}},
		{"wrong gateway of IPv6", []string{"--interface", "eth1", "--gateway", "2001:db8:1::254"}, []string{"2001:db8:1::254"}},
		{"wrong policy", []string{"--interface", "eth1", "--inner-traffic", "maybe"}, []string{"maybe"}},
		{"an argument too many", []string{"--interface", "eth0", "start"}, []string{"start"}},
		{"interface twice", []string{"--interface", "eth0,eth0"}, []string{"eth0"}},
		{"no worker", []string{"--interface", "eth0", "--workers", "0"}, []string{"--workers"}},
	} {
		t.Run(c.name, func(t *testing.T) { expectRefusal(t, host, c.args, c.want...) })
	}
}

// expectRefusal runs uvsd, which must end at once with one line that has certain words, and change nothing.
func expectRefusal(t *testing.T, host *lab.Host, args []string, want ...string) {
	t.Helper()
	refused(t, host, socketDir(t)+"/uvsd.sock", nil, 1, args, want...)
}

func refused(t *testing.T, host *lab.Host, socket string, as *syscall.SysProcAttr, lines int, args []string, want ...string) {
	t.Helper()
	before := stateOf(t, host)
	cmd := host.Command(shortly(t), program("uvsd"), append(args, "--socket", socket)...)
	var stderr, stdout bytes.Buffer
	cmd.Stderr, cmd.Stdout, cmd.SysProcAttr = &stderr, &stdout, as
	timeout := time.AfterFunc(5*time.Second, func() { cmd.Process.Signal(syscall.SIGTERM) })
	defer timeout.Stop()
	err := cmd.Run()
	if err == nil {
		t.Fatalf("uvsd %v started: %s", args, stderr.String())
	}
	if code := cmd.ProcessState.ExitCode(); code != 1 && code != 2 {
		t.Errorf("uvsd %v ended with %v", args, err)
	}
	var said string
	for line := range strings.Lines(stderr.String()) {
		if !strings.HasPrefix(line, "{") { // not of the log
			said += line
		}
	}
	said = strings.TrimSpace(said)
	if strings.Count(said, "\n")+1 != lines || strings.Count(said, "uvsd: ") != lines || stdout.Len() > 0 {
		t.Errorf("uvsd %v says %q and prints %q, want one line for each of %d reasons", args, said, stdout.String(), lines)
	}
	for _, w := range want {
		if !strings.Contains(said, w) {
			t.Errorf("uvsd %v says %q, which doesn't name %q", args, said, w)
		}
	}
	before.check(t, host)
}

func TestStartWithoutCapabilitiesIsRefused(t *testing.T) {
	topo := lab.DR(t, lab.Config{})
	dir := socketDir(t)
	must(t, os.Chmod(dir, 0o777))
	refused(t, topo.Directors[0], dir+"/uvsd.sock", asNobody(), 2, []string{"--interface", "eth0"}, "CAP_NET_RAW", "CAP_NET_ADMIN", "setcap")
}

// asNobody makes a process that of a user without rights.
func asNobody() *syscall.SysProcAttr {
	if !inUserNamespace() {
		return &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	}
	// The only user there is gets another user namespace, which has no rights over this one's networks.
	alone := []syscall.SysProcIDMap{{ContainerID: 65534, HostID: 0, Size: 1}}
	return &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER, UidMappings: alone, GidMappings: alone}
}

// inUserNamespace says that the tests run without root.
func inUserNamespace() bool {
	users, err := os.ReadFile("/proc/self/uid_map")
	return err == nil && !strings.Contains(string(users), "4294967295")
}

func TestSocketInUseIsRefused(t *testing.T) {
	r := newRig(t, rigConfig{Config: lab.Config{Directors: 2}})
	refused(t, r.Directors[1], r.socket, nil, 1, []string{"--interface", "eth0"}, r.socket)
	r.count(2) // the one that has it goes on
}

// An operator learns in a line that there is no uvsd.
func TestUnreachableDaemon(t *testing.T) {
	socket := socketDir(t) + "/nobody.sock"
	for _, args := range [][]string{{"-L", "-n"}, {"status"}, {"-A", "-t", "10.0.0.1:80"}, {"-S"}, {"-C"}} {
		cmd := exec.Command(program("uvsadm"), append([]string{"--socket", socket}, args...)...)
		var stdout, stderr bytes.Buffer
		cmd.Stdout, cmd.Stderr = &stdout, &stderr
		err := cmd.Run()
		said := strings.TrimSpace(stderr.String())
		if err == nil || strings.Contains(said, "\n") || !strings.Contains(said, socket) || stdout.Len() > 0 {
			t.Errorf("uvsadm %v without a daemon: %v, says %q and prints %q; want a line that names the socket", args, err, said, stdout.String())
		}
	}
}

// The address of a service must not be the host's, whose kernel would answer for it: uvsd says so, with the remedy.
func TestVIPOnTheHostIsReported(t *testing.T) { both(t, testVIPOnTheHost) }

func testVIPOnTheHost(t *testing.T, six bool) {
	for _, mac := range []string{"virtual", "interface"} {
		t.Run(mac, func(t *testing.T) {
			r := newRig(t, rigConfig{Bare: true, Six: six, Args: []string{"--mac", mac}})
			own := r.addr(r.Directors[0])
			if _, err := r.tryAdm("", "-A", "-t", netip.AddrPortFrom(own, 80).String()); err != nil {
				return // refused at once: better still
			}
			r.expectWarning(own.String(), "ip addr del "+own.String())
			r.adm("-C")
			r.ping(r.Clients[0], own, 56)
		})
	}
}

// Another station with a service's IPv6 address is found out before uvs takes it, and when the other comes later. (Of ARP:
// TestARPProblemAsTheClientSeesIt.)
func TestAnotherOwnerOfTheIPv6VIPIsReported(t *testing.T) {
	for _, later := range []bool{false, true} {
		t.Run(map[bool]string{false: "before", true: "later"}[later], func(t *testing.T) {
			r := newRig(t, rigConfig{Bare: true, Six: true, Config: lab.Config{Clients: 2}})
			other := r.Clients[1]
			take := func() { must(t, other.AddAddr("eth0", netip.PrefixFrom(r.VIP(), 64))) }
			if !later {
				take()
			}
			r.restore(r.rules(r.VIP(), "rr")...)
			if later {
				r.count(2)
				take()
				sendFrame(t, other.Namespace, "eth0", advertisement(other.Legs[0].MAC, r.VIP()))
			}
			r.expectWarning(r.VIP().String(), other.Legs[0].MAC.String())
		})
	}
}

// expectWarning waits until uvsadm status shows a warning with certain words.
func (r *rig) expectWarning(words ...string) {
	r.t.Helper()
	eventually(r.t, fmt.Sprintf("a warning says %q", words), func() (bool, any) {
		warnings := r.status().Warnings
		for _, w := range warnings {
			found := 0
			for _, word := range words {
				if strings.Contains(w.Text+" "+w.Remedy, word) {
					found++
				}
			}
			if found == len(words) {
				return true, nil
			}
		}
		return false, warnings
	})
}
