#include "engine/request_queue.h"

#include <string>
#include <utility>

#include "specdec/error.h"

namespace specdec {

RequestId RequestQueue::push(std::unique_ptr<Sequence> sequence) {
  RequestId id = 0;
  {
    const std::lock_guard lock(mutex_);
    if (stats_.num_waiting + static_cast<int>(submitted_.size()) >= max_queue_)
      throw Error(ErrorCode::queue_full,
                  "the queue holds scheduler.max_queue = " + std::to_string(max_queue_) +
                      " requests: submit again when one has finished, or raise the limit");
    id = sequence->id = next_id_++;
    live_.insert(id);
    submitted_.push_back(std::move(sequence));
    ++stats_.num_requests_submitted;
  }
  work_.notify_one();
  return id;
}

bool RequestQueue::cancel(RequestId id) {
  {
    const std::lock_guard lock(mutex_);
    if (!live_.contains(id)) return false;
    cancelled_.push_back(id);
  }
  work_.notify_one();
  return true;
}

void RequestQueue::wait_for_work() {
  std::unique_lock lock(mutex_);
  work_.wait(lock, [this] {
    return woken_ || !submitted_.empty() || !cancelled_.empty() || stats_.num_waiting > 0 ||
           stats_.num_running > 0;
  });
  woken_ = false;
}

void RequestQueue::wake() {
  {
    const std::lock_guard lock(mutex_);
    woken_ = true;
  }
  work_.notify_all();
}

std::vector<Output> RequestQueue::take_outputs() {
  const std::lock_guard lock(mutex_);
  return std::exchange(outputs_, {});
}

EngineStats RequestQueue::stats() const {
  const std::lock_guard lock(mutex_);
  return stats_;
}

bool RequestQueue::has_news() const {
  const std::lock_guard lock(mutex_);
  return !submitted_.empty() || !cancelled_.empty();
}

std::vector<std::unique_ptr<Sequence>> RequestQueue::take_submitted() {
  const std::lock_guard lock(mutex_);
  // They wait from now on in the scheduler: keep the bound right until the next publish().
  stats_.num_waiting += static_cast<int>(submitted_.size());
  return std::exchange(submitted_, {});
}

std::vector<RequestId> RequestQueue::take_cancelled() {
  const std::lock_guard lock(mutex_);
  return std::exchange(cancelled_, {});
}

void RequestQueue::publish(std::vector<Output> outputs, const EngineStats& stats) {
  const std::lock_guard lock(mutex_);
  const std::int64_t num_submitted = stats_.num_requests_submitted;
  stats_ = stats;
  stats_.num_requests_submitted = num_submitted;
  for (Output& output : outputs) {
    if (output.finished()) live_.erase(output.id);
    outputs_.push_back(std::move(output));
  }
}

}  // namespace specdec
