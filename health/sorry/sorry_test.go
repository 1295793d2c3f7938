package sorry

import (
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func get(t *testing.T, method, url string) (*http.Response, string) {
	t.Helper()
	client := http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{}}
	r, err := http.NewRequest(method, url, strings.NewReader("form data"))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(b)
}

func TestPages(t *testing.T) {
	s := New(nil)
	defer s.Close()
	file := filepath.Join(t.TempDir(), "page")
	for _, c := range []struct {
		what   string
		page   Page
		file   string
		method string
		body   string // its beginning
		kind   string
		retry  string
	}{
		{"the default", Page{RetryAfter: 10 * time.Second}, "", "GET", "<!DOCTYPE html>", "text/html; charset=utf-8", "10"},
		{"text", Page{Text: "later, please\n", RetryAfter: 1500 * time.Millisecond}, "", "POST", "later, please\n", "text/plain; charset=utf-8", "2"},
		{"HTML", Page{Text: "<h1>later</h1>"}, "", "GET", "<h1>later</h1>", "text/html; charset=utf-8", ""},
		{"its head", Page{Text: "<h1>later</h1>"}, "", "HEAD", "", "text/html; charset=utf-8", ""},
		{"a file", Page{Text: "@" + file}, "from the file", "GET", "from the file", "text/plain; charset=utf-8", ""},
		{"a changed file", Page{Text: "@" + file}, "<p>changed", "GET", "<p>changed", "text/html; charset=utf-8", ""},
		{"a missing file", Page{Text: "@" + file + "x"}, "", "GET", "<!DOCTYPE html>", "text/html; charset=utf-8", ""},
		{"a directory", Page{Text: "@" + filepath.Dir(file)}, "", "GET", "<!DOCTYPE html>", "text/html; charset=utf-8", ""},
	} {
		if c.file != "" {
			if err := os.WriteFile(file, []byte(c.file), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		for _, is4 := range []bool{true, false} {
			addr, err := s.Serve(c.page, is4)
			if err != nil || addr.Addr().Is4() != is4 || !addr.Addr().IsLoopback() {
				t.Fatalf("%s: served at %v, %v", c.what, addr, err)
			}
			r, body := get(t, c.method, "http://"+addr.String()+"/any/where?at=all")
			if r.StatusCode != 503 || !strings.HasPrefix(body, c.body) || (body == "") != (c.body == "") || r.Header.Get("Content-Type") != c.kind ||
				r.Header.Get("Retry-After") != c.retry || !r.Close {
				t.Errorf("%s: %v, %v, %q", c.what, r.Status, r.Header, body)
			}
			if again, err := s.Serve(c.page, is4); err != nil || again != addr {
				t.Errorf("%s: served at %v as well, %v", c.what, again, err)
			}
		}
	}
}

// Clients that say nothing hold up nobody for longer than inTime.
func TestSilentClients(t *testing.T) {
	s := New(nil)
	defer s.Close()
	addr, err := s.Serve(Page{}, true)
	if err != nil {
		t.Fatal(err)
	}
	for range maxConns + 10 {
		c, err := net.Dial("tcp", addr.String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	if r, _ := get(t, "GET", "http://"+addr.String()); r.StatusCode != 503 {
		t.Errorf("status %s", r.Status)
	}
}

func TestClosed(t *testing.T) {
	s := New(nil)
	addr, err := s.Serve(Page{}, true)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if c, err := net.Dial("tcp", addr.String()); err == nil {
		c.Close()
		t.Error("it is served after Close")
	}
	if _, err := s.Serve(Page{}, true); err == nil {
		t.Error("a page is served after Close")
	}
}

func TestPagesAreBounded(t *testing.T) {
	s := New(nil)
	defer s.Close()
	for i := range maxPages {
		s.pages[key{page: Page{RetryAfter: time.Duration(i)}}] = &page{http: new(http.Server), done: closed()}
	}
	if addr, err := s.Serve(Page{Text: "one more"}, true); err == nil {
		t.Errorf("one page too many is served at %v", addr)
	}
}

func closed() chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}
