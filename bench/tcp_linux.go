package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"time"

	"uvs/lab"
)

// serve starts a program on the server and waits until it says a word, or, if that is empty, until it listens on a port.
func (s *site) serve(ctx context.Context, port uint16, word, name string, args ...string) (*lab.Cmd, error) {
	return s.serveOn(ctx, 0, port, word, name, args...)
}

// serveOn is serve on the i-th server.
func (s *site) serveOn(ctx context.Context, i int, port uint16, word, name string, args ...string) (*lab.Cmd, error) {
	log, err := os.Create(filepath.Join(s.dir, fmt.Sprintf("server%d-%s.log", i, name)))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	c := s.servers[i].Command(ctx, name, args...)
	c.Stdout, c.Stderr = log, log
	if err := c.Start(); err != nil {
		return nil, err
	}
	if word != "" {
		return c, upWithin(ctx, c, log.Name(), 10*time.Second, logSays(log.Name(), word))
	}
	return c, upWithin(ctx, c, log.Name(), 10*time.Second, func() error {
		conn, err := s.servers[i].Dial("tcp", netip.AddrPortFrom(s.rips[i], port).String())
		if err == nil {
			conn.Close()
		}
		return err
	})
}

// streamUsage is what one measured stretch of TCP used.
type streamUsage struct{ director, whole time.Duration }

// during measures the CPU time of director, server, and client while the client's program runs, and returns what it printed.
func (s *site) during(ctx context.Context, r *running, server *lab.Cmd, client *lab.Cmd) (out []byte, u streamUsage, err error) {
	serving, err := family(server.Process.Pid)
	if err != nil {
		return nil, u, err
	}
	softirq, err := softirqThreads()
	if err != nil {
		return nil, u, err
	}
	look := func() (director, rest time.Duration) {
		var errs [2]error
		director, errs[0] = cpuOfAll(r.pids)
		rest, errs[1] = cpuOfAll(append(softirq, serving...))
		err = errors.Join(err, errs[0], errs[1])
		return director, rest
	}
	director, rest := look()
	out, runErr := client.Output()
	afterDirector, afterRest := look()
	if err = errors.Join(err, runErr); err != nil {
		return out, u, fmt.Errorf("%w: %s", err, tail(out))
	}
	u.director = afterDirector - director
	u.whole = u.director + afterRest - rest + client.ProcessState.UserTime() + client.ProcessState.SystemTime()
	return out, u, nil
}

// measureBulk moves bytes with iperf3.
func (b *Wire) measureBulk(ctx context.Context, s *site, r *running, streams int, down bool) (map[string]float64, error) {
	port := s.behind(r, bulkPort)
	// A connection to see whether it listens would be its first client, and the real one be refused while it lasts.
	server, err := s.serve(ctx, port, "Server listening", "iperf3", "--server", "--forceflush", "--port", strconv.Itoa(int(port)))
	if err != nil {
		return nil, err
	}
	to := r.served(bulkPort)
	args := []string{"--client", to.Addr().String(), "--port", strconv.Itoa(int(to.Port())), "--parallel", strconv.Itoa(streams),
		"--time", strconv.Itoa(max(1, int(b.Time.Round(time.Second)/time.Second))), "--json"}
	if down {
		args = append(args, "--reverse")
	}
	out, u, err := s.during(ctx, r, server, s.client.Command(ctx, "iperf3", args...))
	if err != nil {
		return nil, err
	}
	bytes, rate, err := parseIperf(out)
	if err != nil {
		return nil, err
	}
	return map[string]float64{
		Gbps: rate / 1e9, DirectorPerGB: perThing(u.director, bytes, 1e9), WholePerGB: perThing(u.whole, bytes, 1e9),
	}, nil
}

// parseIperf reads how many bytes the receiver got, and bits a second, from iperf3's JSON.
func parseIperf(out []byte) (bytes, rate float64, err error) {
	var report struct {
		Error string
		End   struct {
			Received struct {
				Bytes float64
				Rate  float64 `json:"bits_per_second"`
			} `json:"sum_received"`
		}
	}
	if err := json.Unmarshal(out, &report); err != nil || report.Error != "" || report.End.Received.Rate == 0 {
		return 0, 0, errNoFigure("iperf3", out)
	}
	return report.End.Received.Bytes, report.End.Received.Rate, nil
}

// behind is the port that the server is asked at when the client asks r for a service.
func (s *site) behind(r *running, port uint16) uint16 {
	if r.direct {
		return port
	}
	return port + natOffset
}

// serveWeb starts nginx as the servers' web server, and returns the first one's.
func (s *site) serveWeb(ctx context.Context, r *running) (first *lab.Cmd, err error) {
	port := s.behind(r, webPort)
	for i := range s.servers {
		config := filepath.Join(s.dir, fmt.Sprintf("web%d.conf", i))
		text := fmt.Sprintf("daemon off; worker_processes auto; pid %s/web%d.pid; error_log stderr;\nevents { worker_connections 8000; }\n"+
			"http { access_log off; keepalive_requests 1000000; server { listen %d backlog=4096; location / { return 200 \"uvs\\n\"; } } }\n", s.dir, i, port)
		if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
			return nil, err
		}
		c, err := s.serveOn(ctx, i, port, "", "nginx", "-c", config)
		if err != nil {
			return nil, err
		}
		if i == 0 {
			first = c
		}
	}
	return first, nil
}

// measureRequests asks nginx with wrk.
func (b *Wire) measureRequests(ctx context.Context, s *site, r *running, keep bool) (map[string]float64, error) {
	server, err := s.serveWeb(ctx, r)
	if err != nil {
		return nil, err
	}
	args := []string{"--threads", "1", "--connections", "64", "--duration", fmt.Sprintf("%ds", max(1, int(b.Time.Round(time.Second)/time.Second)))}
	if !keep {
		args = append(args, "--header", "Connection: close")
	}
	out, u, err := s.during(ctx, r, server, s.client.Command(ctx, "wrk", append(args, "http://"+r.served(webPort).String()+"/")...))
	if err != nil {
		return nil, err
	}
	requests, rate, failed, err := parseWrk(out)
	if err != nil {
		return nil, err
	}
	return map[string]float64{
		PerSecond: rate, RequestErrors: failed, DirectorPerK: perThing(u.director, requests, 1000), WholePerK: perThing(u.whole, requests, 1000),
	}, nil
}

var (
	wrkCount  = regexp.MustCompile(`(\d+) requests in `)
	wrkRate   = regexp.MustCompile(`Requests/sec:\s+([\d.]+)`)
	wrkErrors = regexp.MustCompile(`Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)`)
	wrkStatus = regexp.MustCompile(`Non-2xx or 3xx responses: (\d+)`)
)

// parseWrk reads how many requests were answered, how many a second, and how many failed, from wrk's report.
func parseWrk(out []byte) (requests, rate, failed float64, err error) {
	count, perSecond := wrkCount.FindSubmatch(out), wrkRate.FindSubmatch(out)
	if count == nil || perSecond == nil {
		return 0, 0, 0, errNoFigure("wrk", out)
	}
	number := func(b []byte) float64 {
		v, e := strconv.ParseFloat(string(b), 64)
		err = errors.Join(err, e)
		return v
	}
	requests, rate = number(count[1]), number(perSecond[1])
	for _, re := range []*regexp.Regexp{wrkErrors, wrkStatus} {
		if m := re.FindSubmatch(out); m != nil {
			for _, n := range m[1:] {
				failed += number(n)
			}
		}
	}
	return requests, rate, failed, err
}
