package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"uvs/lab"
)

// startProgram runs a program, in its namespace if run is a lab's, until the test ends, and returns what it logs.
func startProgram(t testing.TB, cmd *exec.Cmd, run interface {
	Start() error
	Wait() error
}) *logBuffer {
	t.Helper()
	log := new(logBuffer)
	cmd.Stdout, cmd.Stderr = log, log
	must(t, run.Start())
	t.Cleanup(func() {
		cmd.Process.Kill()
		run.Wait()
		if t.Failed() {
			t.Logf("log of %s:\n%s", cmd, log)
		}
	})
	return log
}

// startSNMPd runs Debian's snmpd on a real server; it says that the load average is so much, of one processor.
func startSNMPd(t testing.TB, rs *lab.Host, load string) *lab.Cmd {
	t.Helper()
	needs(t, "snmpd", "snmpd")
	dir := t.TempDir()
	conf := filepath.Join(dir, "snmpd.conf")
	must(t, os.WriteFile(conf, []byte("rocommunity uvs\noverride 1.3.6.1.4.1.2021.10.1.3.1 octet_str \""+load+"\"\n"), 0o600))
	cmd := rs.Command(t.Context(), "snmpd", "-f", "-Lo", "-C", "-c", conf, "-I", "-smux", "-p", filepath.Join(dir, "pid"), "udp:161")
	cmd.Env = append(os.Environ(), "SNMP_PERSISTENT_DIR="+dir, "MIBS=")
	startProgram(t, cmd.Cmd, cmd)
	return cmd
}

// weights are those in force of a service's real servers, by number.
func (r *rig) weights(service string) (list []int) {
	r.t.Helper()
	var reply []struct {
		Server struct {
			Address string `json:"address"`
		} `json:"server"`
		Weight int `json:"weight"`
	}
	var all struct {
		Servers json.RawMessage `json:"servers"`
	}
	must(r.t, json.Unmarshal([]byte(r.adm("health", "-t", service, "--json")), &all))
	must(r.t, json.Unmarshal(all.Servers, &reply))
	for _, rs := range r.RealServers {
		for _, s := range reply {
			if s.Server.Address == rs.Addr().String() {
				list = append(list, s.Weight)
			}
		}
	}
	return list
}

// awaitWeights waits until a service's servers have these weights.
func (r *rig) awaitWeights(what, service string, want ...int) {
	r.t.Helper()
	began := time.Now()
	eventually(r.t, what, func() (bool, any) {
		got := r.weights(service)
		return fmt.Sprint(got) == fmt.Sprint(want), got
	})
	r.t.Logf("%s: weights %v after %v", what, want, time.Since(began).Round(10*time.Millisecond))
}

// TestWeightsFollowWhatServersSay has a real server's weight follow its SNMP daemon, and another's uvs-agent, which drains it.
func TestWeightsFollowWhatServersSay(t *testing.T) {
	r := newRig(t, rigConfig{Bare: true})
	web := r.webService()
	r.restore("-A -t "+web+" -s wrr", fmt.Sprintf("-a -t %s -r %s -g -w 100", web, r.webServer(1)), fmt.Sprintf("-a -t %s -r %s -g -w 100", web, r.webServer(2)))
	r.adm("check", "add", "-t", web, "-r", r.webServer(1), "snmp", "community=uvs", "cpus=1", "interval=200ms", "timeout=5s", "smooth=1ms", "step=1000")
	r.adm("check", "add", "-t", web, "-r", r.webServer(2), "agent", "interval=200ms", "timeout=5s", "smooth=1ms", "step=1000")
	r.awaitWeights("nobody says anything", web, 100, 100)

	busy := startSNMPd(t, r.RealServers[0], "3.00")
	agentSocket := filepath.Join(t.TempDir(), "agent.sock")
	director := r.Directors[0].Addr().String()
	agent := r.RealServers[1].Command(t.Context(), program("uvs-agent"), "--socket", agentSocket, "--director", director, "--load", "0", "--cpu", "0",
		"--memory", "0")
	startProgram(t, agent.Cmd, agent)
	r.awaitWeights("a load of 3 on one processor", web, 25, 100)
	if got := r.count(100); got["rs1"] < 15 || got["rs1"] > 25 {
		t.Errorf("with weights of 25 and 100: %v", got)
	}
	tell := func(words ...string) {
		t.Helper()
		if out, err := exec.Command(program("uvs-agent"), append([]string{"--socket", agentSocket}, words...)...).CombinedOutput(); err != nil {
			t.Fatalf("uvs-agent %v: %v\n%s", words, err, out)
		}
	}
	tell("drain", "new", "disk")
	r.awaitWeights("the agent drains", web, 25, 0)
	if got := r.count(20); got["rs1"] != 20 {
		t.Errorf("while rs2 drains: %v", got)
	}
	if out := r.adm("health", "-t", web); !strings.Contains(out, "#new disk") {
		t.Errorf("uvsadm health doesn't say why:\n%s", out)
	}
	tell("ready")
	r.awaitWeights("the agent is ready", web, 25, 100)

	busy.Process.Kill()
	busy.Wait()
	startSNMPd(t, r.RealServers[0], "0.25")
	r.awaitWeights("a load of a quarter", web, 80, 100)
}

// A service whose servers are all dead is stood in for by uvsd's own page until one is back. One that is back under a policy with
// slow start gets few connections at first.
func TestSorryPageAndSlowStart(t *testing.T) {
	r := newRig(t, rigConfig{Bare: true})
	web := r.webService()
	r.restore("-A -t "+web+" -s rr", fmt.Sprintf("-a -t %s -r %s -g", web, r.webServer(1)), fmt.Sprintf("-a -t %s -r %s -g", web, r.webServer(2)))
	r.adm("check", "add", "-t", web, "tcp", "interval=200ms", "timeout=5s", "rise=1", "fall=2", "inband=no") // patient with a busy machine
	r.adm("check", "policy", "-t", web, "sorry=builtin", "sorrypage=we are closed", "retryafter=30s")
	if got := r.count(20); got["rs1"] != 10 || got["rs2"] != 10 {
		t.Errorf("at first %v", got)
	}
	get := func() (*http.Response, string, error) {
		resp, err := r.client().Get(r.url() + "/")
		if err != nil {
			return nil, "", err
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		return resp, string(body), err
	}
	for _, s := range r.web {
		must(t, s.Close())
	}
	began := time.Now()
	eventually(t, "the page is there", func() (bool, any) {
		resp, body, err := get()
		return err == nil && resp.StatusCode == 503 && body == "we are closed" && resp.Header.Get("Retry-After") == "30", fmt.Sprint(err, body)
	})
	t.Logf("the page was there after %v", time.Since(began).Round(10*time.Millisecond))
	for range 20 {
		if resp, _, err := get(); err != nil || resp.StatusCode != 503 {
			t.Fatalf("the page is gone again: %v, %v", resp, err)
		}
	}
	var listed []struct {
		Quorum struct {
			Up    bool `json:"up"`
			Sorry *struct {
				Address string `json:"address"`
			} `json:"sorry"`
		} `json:"quorum"`
	}
	var all struct {
		Services json.RawMessage `json:"services"`
	}
	must(t, json.Unmarshal([]byte(r.adm("list", "-t", web, "--json")), &all))
	must(t, json.Unmarshal(all.Services, &listed))
	if len(listed) != 1 || listed[0].Quorum.Up || listed[0].Quorum.Sorry == nil || listed[0].Quorum.Sorry.Address != "127.0.0.1" {
		t.Errorf("listed as %+v", listed)
	}

	var err error
	r.web, err = r.Topology.ServeHTTP(r.webPort())
	must(t, err)
	began = time.Now()
	eventually(t, "both are back", func() (bool, any) {
		tally, err := lab.CountHTTP(shortly(t), r.client(), r.url()+"/", 10)
		return err == nil && tally["rs1"] == 5 && tally["rs2"] == 5, fmt.Sprint(tally, err)
	})
	t.Logf("both were back after %v", time.Since(began).Round(10*time.Millisecond))

	r.adm("check", "policy", "-t", web, "slowstart=60s")
	r.adm("-e", "-t", web, "-r", r.webServer(2), "-g", "-w", "0")
	r.adm("-e", "-t", web, "-r", r.webServer(2), "-g", "-w", "1")
	began = time.Now()
	if got := r.count(100); time.Since(began) < 30*time.Second && got["rs2"] > 30 {
		t.Errorf("of the first 100 connections rs2 has %d", got["rs2"])
	} else {
		t.Logf("of the first 100 connections, in %v, rs2 has %d", time.Since(began).Round(time.Millisecond), got["rs2"])
	}
	r.adm("check", "policy", "-t", web, "slowstart=4s")
	r.adm("-e", "-t", web, "-r", r.webServer(2), "-g", "-w", "0")
	r.adm("-e", "-t", web, "-r", r.webServer(2), "-g", "-w", "1")
	began = time.Now()
	eventually(t, "rs2 has all of its share", func() (bool, any) {
		got := r.count(100)
		t.Logf("%v after it came back rs2 has %d of 100 connections", time.Since(began).Round(10*time.Millisecond), got["rs2"])
		time.Sleep(300 * time.Millisecond)
		return got["rs2"] == 50, got
	})
}

// HAProxy takes uvs-agent's word as well.
func TestAgentServesHAProxy(t *testing.T) {
	needs(t, "haproxy", "haproxy")
	dir := t.TempDir()
	socket, stats, conf := filepath.Join(dir, "agent"), filepath.Join(dir, "stats"), filepath.Join(dir, "haproxy.cfg")
	agent := exec.Command(program("uvs-agent"), "--listen", "127.0.0.1:0", "--socket", socket, "--load", "0", "--cpu", "0", "--memory", "0")
	log := startProgram(t, agent, agent)
	port := ""
	eventually(t, "uvs-agent answers", func() (bool, any) {
		m := regexp.MustCompile(`answers on 127\.0\.0\.1:(\d+)`).FindStringSubmatch(log.String())
		if m != nil {
			port = m[1]
		}
		return m != nil, log
	})
	must(t, os.WriteFile(conf, []byte("global\n stats socket "+stats+" mode 600 level admin\ndefaults\n mode tcp\n timeout connect 1s\n timeout client 1s\n"+
		" timeout server 1s\nbackend farm\n server rs1 127.0.0.1:1 weight 100 agent-check agent-inter 100ms agent-port "+port+"\n"), 0o600))
	haproxy := exec.Command("haproxy", "-db", "-f", conf)
	startProgram(t, haproxy, haproxy)
	status := func() string {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		c, err := new(net.Dialer).DialContext(ctx, "unix", stats)
		if err != nil {
			return err.Error()
		}
		defer c.Close()
		_, _ = io.WriteString(c, "show stat farm 4 -1\n")
		csv, _ := io.ReadAll(c)
		for line := range strings.Lines(string(csv)) {
			if f := strings.Split(line, ","); len(f) > 18 && f[1] == "rs1" {
				return f[17] + " " + f[18] // status, weight
			}
		}
		return string(csv)
	}
	want := func(what, want string) {
		t.Helper()
		eventually(t, what, func() (bool, any) { got := status(); return strings.HasPrefix(got, want), got })
	}
	tell := func(word string) {
		t.Helper()
		if out, err := exec.Command(program("uvs-agent"), "--socket", socket, word).CombinedOutput(); err != nil {
			t.Fatalf("uvs-agent %s: %v\n%s", word, err, out)
		}
	}
	want("it is served", "no check 100")
	tell("drain")
	want("it drains", "DRAIN")
	tell("ready")
	want("it is ready", "no check 100")
	tell("down")
	want("it is down", "DOWN")
	tell("ready")
	want("it is up", "no check 100")
	tell("maint")
	want("it is in maintenance", "MAINT")
}
