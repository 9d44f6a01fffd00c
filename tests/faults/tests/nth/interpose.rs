//! The system's calls, as this program has them: each asks first whether it is to fail.
//!
//! The standard library, mio and socket2 call the C library, and a function of the program itself
//! comes before one of the same name there. rustix calls the kernel: the watch for farewells, the
//! look at the receive buffer and the shutdown of an attempt past its deadline are not met.
#![expect(unsafe_code, reason = "what other languages call by name, and what calls them on")]

use std::ffi::{CStr, c_int, c_long, c_uint, c_void};
use std::ptr;

use libc::{epoll_event, pthread_attr_t, pthread_t, size_t, sockaddr, socklen_t, ssize_t};

use crate::faults::{self, Call};

/// A function that fails when it is told to, and else is the kernel's own.
macro_rules! instead_of {
    ($(
        fn $name:ident($($argument:ident: $type:ty),+) -> $returned:ty {
            if $may_fail:expr => $call:ident;
            $number:ident($($passed:expr),+)
        }
    )+) => {$(
        /// # Safety
        ///
        /// As the C library's.
        #[unsafe(no_mangle)]
        pub(crate) unsafe extern "C" fn $name($($argument: $type),+) -> $returned {
            if $may_fail {
                if let Some(code) = faults::meets(Call::$call) {
                    return refuse(code) as $returned;
                }
            }
            // SAFETY: the kernel is passed what the caller passed, or would have.
            unsafe { libc::syscall(libc::$number, $($passed),+) as $returned }
        }
    )+};
}

instead_of! {
    fn socket(domain: c_int, kind: c_int, protocol: c_int) -> c_int {
        if true => Socket;
        SYS_socket(domain, kind, protocol)
    }
    fn connect(fd: c_int, address: *const sockaddr, length: socklen_t) -> c_int {
        if true => Connect;
        SYS_connect(fd, address, length)
    }
    fn send(fd: c_int, bytes: *const c_void, length: size_t, flags: c_int) -> ssize_t {
        if true => Write;
        SYS_sendto(fd, bytes, length, flags, ptr::null::<sockaddr>(), 0 as socklen_t)
    }
    fn recv(fd: c_int, bytes: *mut c_void, length: size_t, flags: c_int) -> ssize_t {
        if true => Read;
        SYS_recvfrom(fd, bytes, length, flags, ptr::null::<sockaddr>(), ptr::null::<socklen_t>())
    }
    // Unix sockets are written to as files are, by some versions of the standard library.
    fn write(fd: c_int, bytes: *const c_void, length: size_t) -> ssize_t {
        if is_socket(fd) => Write;
        SYS_write(fd, bytes, length)
    }
    fn read(fd: c_int, bytes: *mut c_void, length: size_t) -> ssize_t {
        if is_socket(fd) => Read;
        SYS_read(fd, bytes, length)
    }
    fn setsockopt(
        fd: c_int, level: c_int, name: c_int, value: *const c_void, length: socklen_t
    ) -> c_int {
        if true => SetOption;
        SYS_setsockopt(fd, level, name, value, length)
    }
    fn epoll_create1(flags: c_int) -> c_int {
        if true => Epoll;
        SYS_epoll_create1(flags)
    }
    fn eventfd(count: c_uint, flags: c_int) -> c_int {
        if true => EventFd;
        SYS_eventfd2(count, flags)
    }
    // To take one off needs nothing that could run out.
    fn epoll_ctl(epoll: c_int, what: c_int, fd: c_int, event: *mut epoll_event) -> c_int {
        if what != libc::EPOLL_CTL_DEL => Register;
        SYS_epoll_ctl(epoll, what, fd, event)
    }
    // In C it takes any number of arguments; these are passed alike.
    fn fcntl(fd: c_int, command: c_int, argument: c_long) -> c_int {
        if command == libc::F_DUPFD_CLOEXEC => Duplicate;
        SYS_fcntl(fd, command, argument)
    }
}

/// What a connect comes to after a while is asked for as an option.
///
/// # Safety
///
/// As the C library's.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn getsockopt(
    fd: c_int,
    level: c_int,
    name: c_int,
    value: *mut c_void,
    length: *mut socklen_t,
) -> c_int {
    // SAFETY: the kernel is passed what the caller passed.
    let result = unsafe { libc::syscall(libc::SYS_getsockopt, fd, level, name, value, length) };
    if result == 0 && (level, name) == (libc::SOL_SOCKET, libc::SO_ERROR) {
        if let Some(code) = faults::meets(Call::ConnectLater) {
            // SAFETY: the kernel has just written an int there.
            unsafe { value.cast::<c_int>().write_unaligned(code) };
        }
    }
    result as c_int
}

type Routine = extern "C" fn(*mut c_void) -> *mut c_void;
type Create =
    unsafe extern "C" fn(*mut pthread_t, *const pthread_attr_t, Routine, *mut c_void) -> c_int;

/// What a thread does that is exempt because the one that started it is.
struct Exempt(Routine, *mut c_void);

/// Starts a thread.
///
/// # Safety
///
/// As the C library's.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn pthread_create(
    thread: *mut pthread_t,
    attributes: *const pthread_attr_t,
    routine: Routine,
    argument: *mut c_void,
) -> c_int {
    if let Some(code) = faults::meets(Call::Thread) {
        return code;
    }
    let name: &CStr = c"pthread_create";
    // SAFETY: the name ends with a NUL; the C library this program runs on has that function, and
    // this is its signature.
    let create = unsafe {
        let address = libc::dlsym(libc::RTLD_NEXT, name.as_ptr());
        assert!(!address.is_null(), "the C library starts threads");
        std::mem::transmute::<*mut c_void, Create>(address)
    };
    if !faults::is_exempt() {
        // SAFETY: it is passed what the caller passed.
        return unsafe { create(thread, attributes, routine, argument) };
    }
    let start = Box::into_raw(Box::new(Exempt(routine, argument)));
    // SAFETY: as above; `start` is the new thread's from here on.
    let result = unsafe { create(thread, attributes, begin_exempt, start.cast()) };
    if result != 0 {
        // SAFETY: no thread began, so it is nobody's.
        drop(unsafe { Box::from_raw(start) });
    }
    result
}

extern "C" fn begin_exempt(start: *mut c_void) -> *mut c_void {
    // SAFETY: made by `pthread_create` above, for this thread alone.
    let Exempt(routine, argument) = *unsafe { Box::from_raw(start.cast::<Exempt>()) };
    faults::exempt_for_good();
    routine(argument)
}

/// Leaves the reason where the C library does.
fn refuse(code: c_int) -> c_int {
    // SAFETY: the address is that of this thread's own.
    unsafe { *libc::__errno_location() = code };
    -1
}

fn is_socket(fd: c_int) -> bool {
    if !faults::are_armed() {
        return false; // so that most calls cost no other
    }
    let mut kind: c_int = 0;
    let mut length = size_of::<c_int>() as socklen_t;
    let (kind, length) = (ptr::from_mut(&mut kind), ptr::from_mut(&mut length));
    let (level, name) = (libc::SOL_SOCKET, libc::SO_TYPE);
    // SAFETY: both lead to locals of the sizes they are said to have.
    unsafe { libc::syscall(libc::SYS_getsockopt, fd, level, name, kind, length) == 0 }
}
