package health

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
)

func TestGRPC(t *testing.T) {
	serve := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if r.URL.Path != "/grpc.health.v1.Health/Check" || r.Header.Get("Te") != "trailers" || r.Header.Get("Content-Type") != "application/grpc" {
			t.Errorf("%s %v", r.URL, r.Header)
		}
		w.Header().Set("Content-Type", "application/grpc")
		answer := func(message string) {
			w.Header().Set("Trailer", "Grpc-Status, Grpc-Message")
			io.WriteString(w, message)
			w.Header().Set("Grpc-Status", "0")
		}
		switch string(body) {
		case "\x00\x00\x00\x00\x00":
			answer("\x00\x00\x00\x00\x02\x08\x01")
		case "\x00\x00\x00\x00\x06\x0a\x04shop":
			answer("\x00\x00\x00\x00\x02\x08\x02")
		case "\x00\x00\x00\x00\x06\x0a\x04none":
			answer("\x00\x00\x00\x00\x00")
		default: // trailers alone
			w.Header().Set("Grpc-Status", "5")
			w.Header().Set("Grpc-Message", "unknown service")
		}
	})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	plain := &http.Server{Handler: serve, Protocols: new(http.Protocols)}
	plain.Protocols.SetUnencryptedHTTP2(true)
	go plain.Serve(ln)
	defer plain.Close()
	secured := httptest.NewUnstartedServer(serve)
	secured.EnableHTTP2 = true
	secured.StartTLS()
	defer secured.Close()
	for how, address := range map[string]string{"no": ln.Addr().String(), "yes": secured.Listener.Addr().String()} {
		for service, want := range map[string]string{
			"": "SERVING", "shop": "down: NOT_SERVING", "none": "down: UNKNOWN", "other": "down: gRPC status 5: unknown service",
		} {
			wants(t, &GRPC{Service: service, Secure: secure(how)}, at(address), want)
		}
	}
	web := httptest.NewServer(http.HandlerFunc(web))
	defer web.Close()
	wants(t, &GRPC{}, at(web.Listener.Addr().String()), "down: no answer")
	refuses(t, &GRPC{Host: "a b"}, "host")
	refuses(t, &GRPC{Secure: secure("starttls")}, "tls")
}
