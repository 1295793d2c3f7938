package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"uvs/lab"
)

// serverRole is the first argument that makes this program a real server's: NAME HTTP-ADDRESS,... UDP-ADDRESS,... follow.
const serverRole = "serve"

// readyLine is what it prints once it listens.
const readyLine = "ready\n"

// serve runs an ordinary HTTP and an ordinary UDP echo server until the process is told to end; requests in progress are
// finished.
func serve(args []string) error {
	if len(args) != 3 {
		return fmt.Errorf("%s: NAME HTTP-ADDRESS,... UDP-ADDRESS,... are needed", serverRole)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var addrs [2][]netip.AddrPort
	for i := range addrs {
		for text := range strings.SplitSeq(args[1+i], ",") {
			a, err := netip.ParseAddrPort(text)
			if err != nil {
				return err
			}
			addrs[i] = append(addrs[i], a)
		}
	}
	web, err := lab.ServeHTTP(nil, args[0], addrs[0]...)
	if err != nil {
		return err
	}
	udp, err := lab.ServeUDPEcho(nil, args[0], addrs[1]...)
	if err != nil {
		return errors.Join(err, web.Close())
	}
	fmt.Print(readyLine)
	<-ctx.Done()
	last, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	return errors.Join(web.Shutdown(last), udp.Close())
}
