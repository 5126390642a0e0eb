#include "decode_nifti/gzip_index.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace neurokern {
namespace {

// An index file: the windows, a row for each point, a footer. Numbers are in the order of this machine; on
// another the magic number does not match. Windows keep their places when points are added.
constexpr std::uint64_t kMagic = 0x3278'6469'7A67'6B6E;
constexpr std::size_t kKeyBytes = 32;

struct TableRow {
  std::int64_t out, in, member, place;
  std::uint32_t crc, bits, n_bytes, check;
};

struct Footer {
  char key[kKeyBytes];
  std::int64_t file_bytes, base, spacing, n_points;
  std::uint32_t complete, check;  // CRC of the rows and of the footer with 0 here
  std::uint64_t magic;
};

class OpenFile {
 public:
  explicit OpenFile(const std::string& path) : descriptor(open(path.c_str(), O_RDONLY | O_CLOEXEC)) {}
  ~OpenFile() {
    if (descriptor >= 0) close(descriptor);
  }
  OpenFile(const OpenFile&) = delete;
  OpenFile& operator=(const OpenFile&) = delete;
  const int descriptor;
};

bool read_at(int descriptor, std::int64_t place, void* to, std::size_t n) {
  for (std::size_t done = 0; done < n;) {
    const ssize_t got =
        pread(descriptor, static_cast<char*>(to) + done, n - done, place + static_cast<std::int64_t>(done));
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return false;
    done += static_cast<std::size_t>(got);
  }
  return true;
}

bool write_at(int descriptor, std::int64_t place, const void* from, std::size_t n) {
  for (std::size_t done = 0; done < n;) {
    const ssize_t put = pwrite(descriptor, static_cast<const char*>(from) + done, n - done,
                               place + static_cast<std::int64_t>(done));
    if (put < 0 && errno == EINTR) continue;
    if (put <= 0) return false;
    done += static_cast<std::size_t>(put);
  }
  return true;
}

bool write_all(int descriptor, const void* from, std::size_t n) {
  for (std::size_t done = 0; done < n;) {
    const ssize_t put = write(descriptor, static_cast<const char*>(from) + done, n - done);
    if (put < 0 && errno == EINTR) continue;
    if (put <= 0) return false;
    done += static_cast<std::size_t>(put);
  }
  return true;
}

Footer footer_of(const std::string& key) {
  Footer footer;
  std::memset(&footer, 0, sizeof footer);
  std::memcpy(footer.key, key.data(), std::min(key.size(), kKeyBytes));
  footer.magic = kMagic;
  return footer;
}

std::uint32_t check_of(const std::vector<TableRow>& rows, Footer footer) {
  footer.check = 0;
  return crc32_of(crc32_of(0, rows.data(), rows.size() * sizeof(TableRow)), &footer, sizeof footer);
}

// Whether a row may follow the one before: nothing runs backwards, or points out of either file.
bool follows(const TableRow& row, const TableRow& before, std::int64_t gzip_bytes, std::int64_t index_bytes) {
  return row.out > before.out && row.in > before.in && row.in <= gzip_bytes && row.bits < 8 &&
         row.member >= before.member && row.member <= row.out && row.place >= before.place &&
         row.n_bytes <= std::min(kWindowBytes, row.out - row.member) &&
         row.place <= index_bytes - static_cast<std::int64_t>(row.n_bytes);
}

}  // namespace

GzipIndex::GzipIndex(std::int64_t file_bytes, std::int64_t base, std::int64_t spacing)
    : file_bytes_(file_bytes), base_(base), spacing_(std::max<std::int64_t>(spacing, 1)) {}

GzipIndex::~GzipIndex() {
  if (spool_ >= 0) close(spool_);
}

void GzipIndex::spool_in(const std::string& folder) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (spool_ >= 0) return;
  spool_ = open(folder.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
  spool_owner_ = getpid();
}

std::int64_t GzipIndex::next_boundary(std::int64_t out) const {
  return out < base_ ? base_ : base_ + ((out - base_) / spacing_ + 1) * spacing_;
}

void GzipIndex::add(const SeekPoint& point, Window window) {
  Entry entry;
  entry.point = point;
  entry.n_bytes = static_cast<std::uint32_t>(window.size());
  entry.check = crc32_of(0, window.data(), window.size());
  entry.window = std::make_shared<const Window>(std::move(window));
  const std::lock_guard<std::mutex> lock(mutex_);
  if (!entries_.empty()) {
    if (entries_.back().point.out >= point.out) return;
    entry.place = entries_.back().place + entries_.back().n_bytes;
  }
  // A forked child would write where its parent does.
  if (spool_ >= 0 && spool_owner_ == getpid() &&
      write_at(spool_, entry.place, entry.window->data(), entry.n_bytes)) {
    entry.spooled = true;
    entry.window.reset();
  }
  entries_.push_back(std::move(entry));
}

void GzipIndex::complete() {
  const std::lock_guard<std::mutex> lock(mutex_);
  complete_ = true;
}

void GzipIndex::forget() {
  const std::lock_guard<std::mutex> lock(mutex_);
  entries_.clear();
  path_.clear();
  n_saved_ = n_written_ = 0;
  complete_ = saved_complete_ = written_complete_ = false;
}

std::vector<GzipIndex::Entry> GzipIndex::entries() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return entries_;
}

std::int64_t GzipIndex::reach() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return entries_.empty() ? 0 : entries_.back().point.out;
}

std::size_t GzipIndex::n_points() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return entries_.size();
}

std::size_t GzipIndex::n_saved() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return n_saved_;
}

bool GzipIndex::is_complete() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return complete_;
}

bool GzipIndex::is_saved() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return n_saved_ == entries_.size() && saved_complete_ == complete_;
}

Window GzipIndex::window_of(const Entry& entry) const {
  if (entry.window != nullptr) return *entry.window;
  std::string path = "without a name";
  int spool;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    spool = spool_;
    if (!entry.spooled) path = path_;
  }
  Window window(entry.n_bytes);
  const OpenFile file(entry.spooled ? std::string() : path);
  const int descriptor = entry.spooled ? spool : file.descriptor;
  if (descriptor < 0 || !read_at(descriptor, entry.place, window.data(), window.size()) ||
      crc32_of(0, window.data(), window.size()) != entry.check)
    throw StreamError("the file of seek points " + path + " is damaged or gone");
  return window;
}

bool GzipIndex::parse(int descriptor, const std::string& key, std::vector<Entry>& entries,
                      bool& whole) const {
  struct stat status;
  Footer footer, expected = footer_of(key);
  constexpr auto kFooter = static_cast<std::int64_t>(sizeof(Footer));
  if (fstat(descriptor, &status) != 0 || !S_ISREG(status.st_mode) || status.st_size < kFooter) return false;
  const std::int64_t room = status.st_size - kFooter;
  if (!read_at(descriptor, room, &footer, sizeof footer)) return false;
  if (footer.magic != kMagic || std::memcmp(footer.key, expected.key, kKeyBytes) != 0) return false;
  if (footer.file_bytes != file_bytes_ || footer.base != base_ || footer.spacing != spacing_) return false;
  if (footer.n_points < 0 || footer.n_points > room / static_cast<std::int64_t>(sizeof(TableRow)) ||
      footer.complete > 1)
    return false;
  std::vector<TableRow> rows(static_cast<std::size_t>(footer.n_points));
  const std::int64_t table = room - footer.n_points * static_cast<std::int64_t>(sizeof(TableRow));
  if (!read_at(descriptor, table, rows.data(), rows.size() * sizeof(TableRow))) return false;
  if (check_of(rows, footer) != footer.check) return false;
  TableRow before{};
  before.out = -1;
  for (const TableRow& row : rows) {
    if (!follows(row, before, file_bytes_, table)) return false;
    entries.push_back({{row.out, row.in, row.member, row.crc, row.bits},
                       row.place,
                       row.n_bytes,
                       row.check,
                       false,
                       nullptr});
    before = row;
  }
  whole = footer.complete == 1;
  return true;
}

bool GzipIndex::load(const std::string& path, const std::string& key) {
  std::vector<Entry> entries;
  bool whole = false;
  const OpenFile file(path);
  if (file.descriptor < 0 || !parse(file.descriptor, key, entries, whole)) return false;
  const std::lock_guard<std::mutex> lock(mutex_);
  const bool knows_more = (whole && !complete_) || (whole == complete_ && entries.size() > entries_.size());
  if (!knows_more) return false;
  n_saved_ = entries.size();
  entries_ = std::move(entries);
  path_ = path;
  complete_ = saved_complete_ = whole;
  return true;
}

bool GzipIndex::write(int descriptor, const std::string& key) {
  const bool whole = is_complete();
  std::vector<TableRow> rows;
  for (const Entry& entry : entries()) {
    const Window window = window_of(entry);
    if (!write_all(descriptor, window.data(), window.size())) return false;
    const SeekPoint& point = entry.point;
    rows.push_back(
        {point.out, point.in, point.member, entry.place, point.crc, point.bits, entry.n_bytes, entry.check});
  }
  Footer footer = footer_of(key);
  footer.file_bytes = file_bytes_;
  footer.base = base_;
  footer.spacing = spacing_;
  footer.n_points = static_cast<std::int64_t>(rows.size());
  footer.complete = whole ? 1 : 0;
  footer.check = check_of(rows, footer);
  if (!write_all(descriptor, rows.data(), rows.size() * sizeof(TableRow)) ||
      !write_all(descriptor, &footer, sizeof footer))
    return false;
  const std::lock_guard<std::mutex> lock(mutex_);
  n_written_ = rows.size();
  written_complete_ = whole;
  return true;
}

void GzipIndex::adopt(const std::string& path) {
  const std::lock_guard<std::mutex> lock(mutex_);
  n_saved_ = std::min(n_written_, entries_.size());
  saved_complete_ = written_complete_;
  path_ = path;
  for (std::size_t i = 0; i < n_saved_; ++i) {
    entries_[i].spooled = false;
    entries_[i].window.reset();
  }
}

}  // namespace neurokern
