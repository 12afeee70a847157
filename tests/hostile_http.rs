//! Whatever is sent to it, HTTP answers or closes: no panic, no status of 5xx, no change to streams that a request is
//! not about. The fuzz target `http` calls the same function.

mod hostile;

#[test]
fn requests() {
    hostile::mutate::run("http", 1500, hostile::http::check);
}
