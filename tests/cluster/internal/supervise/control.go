package supervise

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"syscall"
	"time"

	"headroom.dev/tests/cluster/internal/layout"
)

const socket = "control.sock"

// Order is what another command asks of the supervisor, over HTTP on a socket in the state directory.
type Order struct {
	// Action is start, stop, restart, pause, resume, status or down.
	Action    string `json:"action"`
	Component string `json:"component,omitempty"`
	// Signal that stops the process, SIGTERM where it is 0.
	Signal syscall.Signal `json:"signal,omitempty"`
	// Grace from the signal until the process is killed.
	Grace time.Duration `json:"grace,omitempty"`
	// Timeout until a started component must answer.
	Timeout time.Duration `json:"timeout,omitempty"`
}

type reply struct {
	Error       string             `json:"error,omitempty"`
	Description layout.Description `json:"description"`
}

func (s *Supervisor) listen() (net.Listener, error) {
	_ = os.Remove(s.directory.Path(socket))
	var listener net.Listener
	err := throughDirectory(s.directory, func(path string) (err error) {
		listener, err = net.Listen("unix", path)
		return err
	})
	if err != nil {
		return nil, err
	}
	// The name by which it was made is gone by then; the file stays until the next start.
	listener.(*net.UnixListener).SetUnlinkOnClose(false)
	server := &http.Server{Handler: http.HandlerFunc(s.serve)}
	go func() {
		if err := server.Serve(listener); err != nil && !errors.Is(err, net.ErrClosed) {
			fmt.Fprintln(s.log, "control:", err)
		}
	}()
	return listener, nil
}

// throughDirectory gives a short name for the socket: the path of a Unix socket has at most 107 bytes.
func throughDirectory(directory layout.Directory, use func(path string) error) error {
	opened, err := os.Open(string(directory))
	if err != nil {
		return err
	}
	defer opened.Close()
	return use(fmt.Sprintf("/proc/self/fd/%d/%s", opened.Fd(), socket))
}

func (s *Supervisor) serve(response http.ResponseWriter, request *http.Request) {
	var order Order
	var result reply
	if err := json.NewDecoder(request.Body).Decode(&order); err != nil {
		result.Error = err.Error()
	} else if err := s.obey(request.Context(), order); err != nil {
		result.Error = err.Error()
	}
	result.Description = s.Description()
	_ = json.NewEncoder(response).Encode(result)
}

func (s *Supervisor) obey(ctx context.Context, order Order) error {
	switch order.Action {
	case "status":
		return nil
	case "down":
		s.downOnce.Do(func() { close(s.down) })
		return nil
	}
	process, err := s.process(order.Component)
	if err != nil {
		return err
	}
	switch order.Action {
	case "start":
		return s.startWithin(ctx, order)
	case "stop":
		process.stop(order.Signal, order.Grace)
	case "restart":
		process.stop(order.Signal, order.Grace)
		return s.startWithin(ctx, order)
	case "pause":
		err = process.pause(true)
	case "resume":
		err = process.pause(false)
	default:
		err = fmt.Errorf("action %q is not one of start, stop, restart, pause, resume, status, down", order.Action)
	}
	return errors.Join(err, s.write())
}

func (s *Supervisor) startWithin(ctx context.Context, order Order) error {
	ctx, cancel := context.WithTimeout(ctx, order.Timeout)
	defer cancel()
	return s.startOne(ctx, order.Component)
}

// Send gives an order to the supervisor of the cluster in the directory.
func Send(directory layout.Directory, order Order) (layout.Description, error) {
	client := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (connection net.Conn, err error) {
		err = throughDirectory(directory, func(path string) error {
			connection, err = (&net.Dialer{}).DialContext(ctx, "unix", path)
			return err
		})
		return connection, err
	}}}
	body, err := json.Marshal(order)
	if err != nil {
		return layout.Description{}, err
	}
	response, err := client.Post("http://supervisor/", "application/json", bytes.NewReader(body))
	if err != nil {
		return layout.Description{}, fmt.Errorf("no cluster runs in %s (cluster up --dir %s starts one): %w", directory, directory, err)
	}
	defer response.Body.Close()
	var result reply
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return layout.Description{}, err
	}
	if err := json.Unmarshal(text, &result); err != nil {
		return layout.Description{}, err
	}
	if result.Error != "" {
		return result.Description, errors.New(result.Error)
	}
	return result.Description, nil
}

// Stopped waits until the supervisor of the directory has ended and holds its lock no longer.
func Stopped(ctx context.Context, directory layout.Directory) error {
	for {
		lock, err := takeLock(directory)
		if err == nil {
			return lock.Close()
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(20 * time.Millisecond):
		}
	}
}
