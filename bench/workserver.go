package bench

import (
	"container/heap"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"
)

// workServer is an HTTP server of limited speed: GET /work?demand=74ms&latency=600ms takes latency and then so much of its
// processors, which all requests that are in service share as processes share a machine's. The processors are imagined, so that
// several such servers fit into one machine: time passes, and nothing is computed.
type workServer struct {
	speed, processors float64
	server            http.Server

	mu      sync.Mutex // guards what follows
	given   float64    // seconds of work that each request in service has got since the server was idle
	last    time.Time  // when that was brought up to date
	running workHeap
	timer   *time.Timer
}

type workItem struct {
	done float64 // what given will be then
	over chan struct{}
}

type workHeap []workItem

func (h workHeap) Len() int           { return len(h) }
func (h workHeap) Less(i, j int) bool { return h[i].done < h[j].done }
func (h workHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *workHeap) Push(x any)        { *h = append(*h, x.(workItem)) }
func (h *workHeap) Pop() any {
	old := *h
	x := old[len(old)-1]
	*h = old[:len(old)-1]
	return x
}

// newWorkServer serves on ln, with so many processors of a speed, until it is closed.
func newWorkServer(ln net.Listener, speed, processors float64) *workServer {
	s := &workServer{speed: speed, processors: processors}
	s.timer = time.AfterFunc(time.Hour, s.due)
	mux := http.NewServeMux()
	mux.HandleFunc("GET /work", func(w http.ResponseWriter, r *http.Request) {
		demand, err1 := time.ParseDuration(r.FormValue("demand"))
		latency, err2 := time.ParseDuration(r.FormValue("latency"))
		if err1 != nil || err2 != nil || demand < 0 || latency < 0 {
			http.Error(w, "demand and latency are spans of time", http.StatusBadRequest)
			return
		}
		time.Sleep(latency)
		<-s.work(demand.Seconds())
		fmt.Fprintln(w, "done")
	})
	s.server.Handler = mux
	go s.server.Serve(ln) // ends with Close, and always with an error
	return s
}

func (s *workServer) Close() error {
	s.mu.Lock()
	s.timer.Stop()
	for _, x := range s.running {
		close(x.over)
	}
	s.running = nil
	s.mu.Unlock()
	return s.server.Close()
}

// work begins to serve a request; the channel is closed when it is served.
func (s *workServer) work(demand float64) <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.advanceLocked()
	x := workItem{s.given + demand, make(chan struct{})}
	heap.Push(&s.running, x)
	s.scheduleLocked()
	return x.over
}

// due ends what is served by now.
func (s *workServer) due() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.advanceLocked()
	s.scheduleLocked()
}

// rateLocked is the work that each of those in service gets in a second. It needs mu.
func (s *workServer) rateLocked() float64 {
	return s.speed * min(1, s.processors/float64(len(s.running)))
}

// advanceLocked brings the server up to now, one end of service after the other: a timer that comes late must not make the
// server slower. It needs mu.
func (s *workServer) advanceLocked() {
	now := time.Now()
	for len(s.running) > 0 {
		left := now.Sub(s.last).Seconds()
		needed := (s.running[0].done - s.given) / s.rateLocked()
		if needed > left {
			s.given += left * s.rateLocked()
			break
		}
		s.given = s.running[0].done
		s.last = s.last.Add(time.Duration(max(needed, 0) * float64(time.Second)))
		close(heap.Pop(&s.running).(workItem).over)
	}
	s.last = now
}

// scheduleLocked sets the timer for the next end of service. It needs mu.
func (s *workServer) scheduleLocked() {
	if len(s.running) > 0 {
		s.timer.Reset(time.Duration((s.running[0].done-s.given)/s.rateLocked()*float64(time.Second)) + time.Microsecond)
	}
}
